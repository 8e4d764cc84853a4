from __future__ import annotations

import torch
from torch import Tensor

from fastconv.backends.reference.channel_reduce import transform


def channel_normalize(
    x: Tensor, mode: str, scale: Tensor | None, shift: Tensor | None, eps: float
) -> Tensor:
    if mode in ("batchnorm", "zscore", "minmax"):  # per-channel statistics came as an affine map
        return _like(transform(x, scale, shift, None), x)
    flat = x.double().flatten(2) if x.ndim > 2 else x.double()[..., None]
    if mode == "instance":
        mean = flat.mean(-1, keepdim=True)
        value = (flat - mean) * torch.rsqrt(flat.var(-1, correction=0, keepdim=True) + eps)
    else:
        norm = torch.linalg.vector_norm(flat, ord=int(mode[1]), dim=-1, keepdim=True)
        value = flat / norm.clamp_min(eps)
    return _like(value.view(x.shape), x)


def _like(value: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x).copy_(value)  # dtype and memory format of x

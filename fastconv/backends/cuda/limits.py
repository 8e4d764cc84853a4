"""What every wrapper asks before a launch."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # in the order of csrc/params.h
_OLDEST = (8, 0)
_MOST = 2**30  # elements of a sample: positions, and how far loops step beyond them, are int32


def no_device(x: Tensor) -> str | None:
    """Why the kernels cannot run where x is, or None."""
    if not x.is_cuda:
        return f"the tensor is on {x.device}"
    major, minor = torch.cuda.get_device_capability(x.device)
    if (major, minor) < _OLDEST:
        return f"the device is sm_{major}{minor}; the kernels need sm_80 or later"
    return None


def unsupported(x: Tensor) -> str | None:
    """Why no kernel that computes can run on x [N, ...], or None."""
    if x.dtype not in DTYPES:
        return f"its kernels take float32, float16 and bfloat16, not {x.dtype}"
    if x[:1].numel() > _MOST:
        return f"one sample has {x[:1].numel()} elements, more than 2^30"
    return no_device(x)


def float32(t: Tensor | None) -> Tensor | None:
    """Scale or shift as the kernels take it."""
    return None if t is None else t.float().contiguous()

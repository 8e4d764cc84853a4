"""Per-channel normalisation of an activation."""

from __future__ import annotations

import torch
from torch import Tensor

from fastconv import dispatch
from fastconv.errors import InputError
from fastconv.ops.checks import check_affine, check_dtype

MODES = ("batchnorm", "zscore", "minmax", "instance", "l1", "l2")

torch.library.define(
    "fastconv::channel_normalize",
    "(Tensor x, str mode, Tensor? scale, Tensor? shift, float eps, str backend='auto') -> Tensor",
)


@torch.library.impl("fastconv::channel_normalize", ("CPU", "CUDA"))
def _run(x, mode, scale, shift, eps, backend="auto"):
    args = (x, mode, scale, shift, eps)
    return dispatch.select("channel_normalize", backend, x.device, *args)(*args)


@torch.library.register_fake("fastconv::channel_normalize")
def _fake(x, mode, scale, shift, eps, backend="auto"):
    return torch.empty_like(x)


def channel_normalize(
    x: Tensor,
    mode: str,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    min: Tensor | None = None,
    max: Tensor | None = None,
    eps: float = 1e-5,
    backend: str = "auto",
) -> Tensor:
    """Normalise every channel of an activation.

    | mode | value | needs |
    | --- | --- | --- |
    | "batchnorm" | scale * x + shift | scale, shift |
    | "zscore" | (x - mean) / sqrt(var + eps) | mean, var (of the data set, say) |
    | "minmax" | (x - min) / (max - min), 0 where max = min | min, max |
    | "instance" | (x - its mean) / sqrt(its variance + eps), of each (sample, channel) | - |
    | "l1", "l2" | x / max(norm, eps), norm over the positions of each (sample, channel) | - |

    Args:
        x: [N, C, *spatial], float32, float16, bfloat16 or float64.
        scale, shift, mean, var, min, max: [C].
        eps: as in the table.

    Returns:
        A tensor like `x`: the same shape, dtype and memory format.

    Raises:
        InputError: an unknown mode, or a missing, superfluous or misshapen argument.

    Numerics:
        Computed in float32 (float64 for float64 input), moments in float64, rounded once.
    """
    check_dtype(x, "x")
    if not 2 <= x.ndim <= 5:
        raise InputError(
            f"x must be [N, C, *spatial] with 0 to 3 spatial dimensions, got {list(x.shape)}"
        )
    if mode not in MODES:
        raise InputError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    given = {"scale": scale, "shift": shift, "mean": mean, "var": var, "min": min, "max": max}
    needed = {
        "batchnorm": ("scale", "shift"),
        "zscore": ("mean", "var"),
        "minmax": ("min", "max"),
    }.get(mode, ())
    for name, value in given.items():
        if (value is not None) != (name in needed):
            raise InputError(
                f"mode {mode!r} takes {' and '.join(needed) or 'no statistics'}; check {name}"
            )
    if mean is not None and var is not None:
        scale = torch.rsqrt(var.double() + eps)
        shift = -mean.double() * scale
    elif min is not None and max is not None:
        width = max.double() - min.double()
        scale = torch.where(width > 0, 1 / width, 0.0)
        shift = -min.double() * scale
    check_affine(scale, shift, x.shape[1], x)
    return dispatch.run("channel_normalize", backend, x, mode, scale, shift, eps)

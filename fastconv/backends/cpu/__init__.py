"""C++ kernels, reached through `torch.ops.fastconv_cpu`."""

from __future__ import annotations

import os
from functools import cache

import torch

from fastconv.backends import Kernel
from fastconv.backends.cpu.channel_reduce import channel_reduce
from fastconv.backends.cpu.channel_reduce import supports as channel_reduce_supports
from fastconv.backends.cpu.conv_reduce import conv_reduce, pack_weight
from fastconv.backends.cpu.conv_reduce import supports as conv_reduce_supports
from fastconv.backends.cpu.exact_add import exact_add
from fastconv.backends.cpu.gather_patches import gather_patches, place_patches
from fastconv.backends.cpu.gather_patches import supports as gather_patches_supports
from fastconv.backends.cpu.paste_patches import paste_patches
from fastconv.backends.cpu.shrink_colours import shrink_colours
from fastconv.backends.cpu.topk_merge import topk_merge
from fastconv.errors import BackendUnavailableError

ISA_LEVELS = ("scalar", "avx2", "avx512", "amx")


@cache
def unavailable() -> str | None:
    try:
        import fastconv._C  # noqa: F401
    except ImportError as error:
        return f"the C++ library cannot be loaded ({error}); reinstall fastconv to build it"
    wanted = os.environ.get("FASTCONV_ISA")
    if wanted:
        set_isa(wanted)
    return None


def isa() -> str:
    """The instruction set in use."""
    return ISA_LEVELS[torch.ops.fastconv_cpu.isa()]


def supported_isas() -> tuple[str, ...]:
    """Every level this machine can run, lowest first."""
    return ISA_LEVELS[: torch.ops.fastconv_cpu.isa_best() + 1]


def set_isa(level: str) -> None:
    """Choose the instruction set of all CPU kernels (FASTCONV_ISA does it at import)."""
    if level not in supported_isas():
        raise BackendUnavailableError(
            f"FASTCONV_ISA={level} is not to be had: "
            f"this machine runs {', '.join(supported_isas())}"
        )
    torch.ops.fastconv_cpu.isa_set(ISA_LEVELS.index(level))


KERNELS = {
    "channel_reduce": Kernel(
        channel_reduce, channel_reduce_supports, frozenset({"candidates", "post_ops"})
    ),
    "conv_reduce": Kernel(
        conv_reduce, conv_reduce_supports, frozenset({"post_ops", "candidates"}), pack_weight
    ),
    "gather_patches": Kernel(gather_patches, gather_patches_supports),
    "place_patches": Kernel(place_patches, gather_patches_supports),
    "paste_patches": Kernel(paste_patches, lambda *args: None),
    "shrink_colours": Kernel(shrink_colours, lambda *args: None),
    "topk_merge": Kernel(topk_merge, lambda *args: None),
    "exact_add": Kernel(exact_add, lambda *args: None),
}

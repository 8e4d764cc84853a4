"""Tile shapes per architecture, chosen by dtype and layer shape - never by the batch size.

The tile shape fixes the order of the float32 sums, so a choice that looked at the batch would make
results depend on how the data is split.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
import triton

from fastconv.backends.triton.launch import INTERPRETED

_OLD = triton.__version__.startswith("3.6.")  # needs more registers than later versions


class ConvConfig(NamedTuple):
    block_m: int  # output channels of a tile
    block_n: int  # positions of a tile
    block_k: int
    warps: int
    stages: int
    tiles: int  # position tiles of one program


class ReduceConfig(NamedTuple):
    block_c: int
    block_p: int
    steps: int  # blocks of positions in one float32 tile
    tiles: int  # tiles of one program
    warps: int
    stages: int


def architecture(device: torch.device) -> str:
    """ "sm_80", "sm_90", "sm_100" (the family), or "interpreter"."""
    if device.type != "cuda" or INTERPRETED:
        return "interpreter"
    major, _ = torch.cuda.get_device_capability(device)
    return {8: "sm_80", 9: "sm_90"}.get(major, "sm_100")


def conv_precision(x: torch.Tensor) -> str:
    """Of float32 products: "tf32" where torch would use it, else "ieee"."""
    if INTERPRETED and x.dtype == torch.bfloat16:
        return "upcast"  # the interpreter multiplies the bits of bfloat16 as integers
    if x.dtype != torch.float32 or not x.is_cuda:
        return "ieee"
    convolution = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return "tf32" if convolution.fp32_precision == "tf32" else "ieee"


def power_of_two(value: int, low: int, high: int) -> int:
    return min(max(triton.next_power_of_2(value), low), high)


def conv_pointer(
    x: torch.Tensor, precision: str, group_out: int, positions: int, *, heavy: bool
) -> ConvConfig:
    """Of kernel B; heavy: it also writes the activation or counts bins, which costs registers."""
    if architecture(x.device) == "interpreter":
        return ConvConfig(32, 32, 16, warps=4, stages=1, tiles=2)
    block_m, block_n = power_of_two(group_out, 16, 64), power_of_two(positions, 16, 64)
    if x.dtype != torch.float32:
        if heavy and architecture(x.device) == "sm_100":
            block_n = min(block_n, 32)  # 64 spills a few registers with triton 3.9
        if _OLD and architecture(x.device) == "sm_80" and not heavy:
            block_m = min(block_m, 32)  # 64 spills a few registers with triton 3.6
        return ConvConfig(block_m, block_n, 32, warps=8 if heavy else 4, stages=3, tiles=32)
    if heavy and architecture(x.device) == "sm_80":
        block_m = min(block_m, 32)  # 64 spills a few registers with triton 3.9
    wide = heavy or precision == "ieee"  # ieee has no tensor cores: registers hold the operands
    return ConvConfig(block_m, block_n, 16, warps=8 if wide else 4, stages=3, tiles=32)


def with_candidates(config: ConvConfig) -> ConvConfig:
    """The same where lists of candidates are written: fewer positions, lest registers spill."""
    return config._replace(block_n=min(config.block_n, 32))


def no_tma(x: torch.Tensor) -> str | None:
    """Why a convolution of x should not go through TMA, or None."""
    if architecture(x.device) == "sm_80":
        return "TMA needs sm_90 or later"
    if architecture(x.device) != "interpreter" and _no_tensor_cores(x):
        return "float32 products without tf32 use no tensor cores"
    return None


def _no_tensor_cores(x: torch.Tensor) -> bool:
    return x.dtype == torch.float32 and conv_precision(x) == "ieee"


def conv_tma(
    x: torch.Tensor, c_out: int, gemm_k: int, positions: int, *, heavy: bool
) -> ConvConfig:
    """Of kernel A; heavy: it also writes the activation or counts bins, which costs registers."""
    if architecture(x.device) == "interpreter":
        return ConvConfig(32, 32, 16, warps=4, stages=1, tiles=2)
    block_k = 128 // x.dtype.itemsize  # one swizzled row
    few = heavy or gemm_k <= 512  # products per value: small tiles, many programs at once
    if few or architecture(x.device) == "sm_100":  # where larger tiles spill a few registers
        block_n = power_of_two(4 * positions, 32, 64)
        return ConvConfig(64, block_n, block_k, warps=8 if heavy else 4, stages=3, tiles=32)
    block_m = 128 if c_out > 64 else 64
    block_n = power_of_two(4 * positions, 32, 128)
    return ConvConfig(block_m, block_n, block_k, warps=block_m // 16, stages=3, tiles=16)


def box(out_size: tuple[int, int, int], block_n: int) -> tuple[int, int, int, int]:
    """Samples, d, h, w of a tile of block_n positions: the fewest masked ones, then few samples."""
    best, least = (1, 1, 1, block_n), None
    sides = [2**i for i in range(block_n.bit_length())]
    for samples, d, h in product(sides[:3], sides, sides):
        w = block_n // (samples * d * h)
        if w < 1:
            continue
        tiles = [triton.cdiv(n, side) for n, side in zip(out_size, (d, h, w), strict=True)]
        cost = (tiles[0] * tiles[1] * tiles[2] * d * h * w, samples, abs(h - w), d)
        if least is None or cost < least:
            best, least = (samples, d, h, w), cost
    return best


def conv_direct(
    device: torch.device, channels: int, positions: int, *, channels_last: bool
) -> ConvConfig:
    if architecture(device) == "interpreter":
        return ConvConfig(8, 32, 1, warps=4, stages=1, tiles=2)
    if channels_last:
        return ConvConfig(
            power_of_two(channels, 1, 64), power_of_two(positions, 16, 32), 1, 4, 1, 32
        )
    block_n = power_of_two(positions, 16, 512)
    return ConvConfig(power_of_two(min(channels, 1024 // block_n), 1, 64), block_n, 1, 4, 1, 16)


def channel_reduce(
    device: torch.device,
    channels: int,
    positions: int,
    *,
    channels_last: bool,
    lists: bool,
) -> ReduceConfig:
    if architecture(device) == "interpreter":
        return ReduceConfig(16, 32, steps=2, tiles=2, warps=4, stages=1)
    if channels_last:
        block_c = power_of_two(channels, 8, 16 if lists else 64)
        return ReduceConfig(block_c, 16, steps=32, tiles=8, warps=4, stages=1)
    block_p = power_of_two(positions, 16, 1024)
    return ReduceConfig(
        power_of_two(channels, 1, 1024 // block_p), block_p, 16, 1, warps=4, stages=1
    )


def channel_normalize(channels: int, positions: int, *, channels_last: bool) -> tuple[int, int]:
    """Channels and positions of a block of 1024 elements."""
    if channels_last:
        block_c = power_of_two(channels, 1, 64)
        return block_c, 1024 // block_c
    block_p = power_of_two(positions, 1, 1024)
    return power_of_two(channels, 1, 1024 // block_p), block_p

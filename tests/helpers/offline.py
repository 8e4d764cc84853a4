"""Compile what the wrappers would launch on a GPU, without one: python offline.py sm_90 [case ...].

The wrappers run on meta tensors of real layer shapes under a driver that only knows its target, so
exactly the launched specialisations are compiled. Prints one JSON object per kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from fastconv.backends.triton import KERNELS, tuning
from fastconv.reduction import CandidateLists, PostOps

BF16, FP32 = torch.bfloat16, torch.float32


def like(*shape: int, dtype=BF16, last: bool = False) -> torch.Tensor:
    """A meta tensor, channels next to each other if last."""
    if last:
        n, c, *spatial = shape
        return torch.empty((n, *spatial, c), dtype=dtype, device="meta").movedim(-1, 1)
    return torch.empty(shape, dtype=dtype, device="meta")


def lists(channels):
    return CandidateLists.create(like(channels, dtype=FP32), 4096, largest=True)


def conv(
    x, c_out, kernel, stride=1, padding=0, groups=1, *, precision="ieee", full=False,
    candidates=False, post_ops=False,
):  # fmt: skip
    """Arguments of conv_reduce with bias, affine and ReLU; full: GELU, histogram and activation;
    post_ops: the convolution reduced and affine and ReLU of it written.
    """
    rank = len(kernel)
    weight = torch.empty((c_out, x.shape[1] // groups, *kernel), dtype=x.dtype, device="meta")
    vector = torch.empty(c_out, dtype=torch.float32, device="meta")
    histogram = torch.empty((c_out, 2563), dtype=torch.int64, device="meta") if full else None
    arguments = (x, weight, vector.to(x.dtype), [stride] * rank, [padding] * 2 * rank, [1] * rank)
    arguments += (groups, vector, vector, "gelu" if full else "relu", histogram, full)
    if post_ops:
        arguments = (
            *arguments[:7],
            None,
            None,
            None,
            histogram,
            True,
            PostOps(vector, vector, "relu"),
        )
    arguments += (None, lists(c_out)) if candidates else ()
    return "conv_reduce", arguments, precision


def reduce(x, *, histogram=False, candidates=False):
    counts = torch.empty((x.shape[1], 2563), dtype=torch.int64, device="meta")
    arguments = (x, None, None, None, counts if histogram else None)
    return "channel_reduce", (*arguments, lists(x.shape[1]) if candidates else None), "ieee"


def topk(channels, slots, candidates):
    lists = [
        [like(channels, n, dtype=dtype) for dtype in (FP32, torch.int64, torch.int64)]
        for n in (slots, candidates)
    ]
    return "topk_merge", (*lists[0], *lists[1], True), "ieee"


def patches(x, size, *, count=576, colours=False):
    index, start = like(count, dtype=torch.int64), like(count, len(size), dtype=torch.int64)
    affine = (like(3, dtype=FP32),) * 2 if colours else (None, None)
    out = like(count, *size, 3, dtype=torch.uint8) if colours else like(count, x.shape[1], *size)
    return "place_patches", (x, index, start, index, *affine, out), "ieee"


def normalize(x, mode):
    vector = like(x.shape[1], dtype=FP32)
    affine = (vector, vector) if mode in ("batchnorm", "zscore") else (None, None)
    return "channel_normalize", (x, mode, *affine, 1e-5), "ieee"


CASES = {
    "pointer_3x3_bf16": conv(like(8, 60, 56, 56), 64, (3, 3), padding=1),
    "pointer_3x3_bf16_full": conv(like(8, 60, 56, 56), 64, (3, 3), padding=1, full=True),
    "pointer_3x3_bf16_candidates": conv(
        like(8, 60, 56, 56), 64, (3, 3), padding=1, candidates=True
    ),
    "pointer_stem_bf16": conv(like(8, 3, 224, 224), 64, (7, 7), stride=2, padding=3),
    "pointer_3x3_tf32": conv(
        like(8, 62, 56, 56, dtype=FP32), 64, (3, 3), padding=1, precision="tf32"
    ),
    "pointer_3x3_ieee": conv(like(8, 62, 56, 56, dtype=FP32), 64, (3, 3), padding=1),
    "pointer_3x3_tf32_full": conv(
        like(8, 62, 56, 56, dtype=FP32), 64, (3, 3), padding=1, precision="tf32", full=True
    ),
    "pointer_3x3_ieee_full": conv(
        like(8, 62, 56, 56, dtype=FP32), 64, (3, 3), padding=1, full=True
    ),
    "pointer_1d_fp16": conv(like(8, 33, 1001, dtype=torch.float16), 128, (9,), padding=4),
    "pointer_3d_groups_bf16": conv(like(8, 64, 9, 28, 28), 64, (3, 3, 3), padding=1, groups=2),
    "tma_3x3_bf16": conv(like(8, 64, 56, 56, last=True), 64, (3, 3), padding=1),
    "tma_3x3_bf16_full": conv(like(8, 64, 56, 56, last=True), 64, (3, 3), padding=1, full=True),
    "tma_3x3_bf16_candidates": conv(
        like(8, 64, 56, 56, last=True), 64, (3, 3), padding=1, candidates=True
    ),
    "tma_3x3_tf32": conv(
        like(8, 64, 56, 56, dtype=FP32, last=True), 64, (3, 3), padding=1, precision="tf32"
    ),
    "tma_3x3_tf32_full": conv(
        like(8, 64, 56, 56, dtype=FP32, last=True),
        64,
        (3, 3),
        padding=1,
        precision="tf32",
        full=True,
    ),
    "tma_3x3_stride_bf16": conv(like(8, 128, 56, 56, last=True), 128, (3, 3), 2, 1),
    "tma_1x1_bf16": conv(like(8, 64, 56, 56, last=True), 256, (1, 1)),
    "tma_3x3_7x7_bf16": conv(like(8, 512, 7, 7, last=True), 512, (3, 3), padding=1),
    "tma_1d_fp16": conv(like(8, 64, 1001, dtype=torch.float16, last=True), 128, (9,), padding=4),
    "tma_3d_bf16": conv(like(8, 64, 16, 28, 28, last=True), 64, (3, 3, 3), padding=1),
    "tma_3x3_tf32_onward": conv(
        like(8, 64, 56, 56, dtype=FP32, last=True),
        64,
        (3, 3),
        padding=1,
        precision="tf32",
        post_ops=True,
    ),
    "pointer_3x3_ieee_onward": conv(
        like(8, 62, 56, 56, dtype=FP32), 64, (3, 3), padding=1, post_ops=True
    ),
    "depthwise_nchw_bf16": conv(like(8, 96, 56, 56), 96, (3, 3), padding=1, groups=96),
    "depthwise_nchw_bf16_candidates": conv(
        like(8, 96, 56, 56), 96, (3, 3), padding=1, groups=96, candidates=True
    ),
    "depthwise_nhwc_bf16": conv(like(8, 96, 56, 56, last=True), 96, (7, 7), padding=3, groups=96),
    "reduce_nchw_bf16": reduce(like(8, 64, 56, 56)),
    "reduce_nhwc_bf16": reduce(like(8, 64, 56, 56, last=True)),
    "reduce_nchw_fp32_histogram": reduce(like(8, 64, 56, 56, dtype=FP32), histogram=True),
    "reduce_nchw_bf16_candidates": reduce(like(8, 64, 56, 56), candidates=True),
    "reduce_nhwc_bf16_candidates": reduce(like(8, 64, 56, 56, last=True), candidates=True),
    "normalize_batchnorm_nhwc": normalize(like(8, 64, 56, 56, last=True), "batchnorm"),
    "normalize_zscore_volume": normalize(like(1, 8, 256, 512, 512, last=True), "zscore"),
    "normalize_instance_nchw": normalize(like(8, 64, 56, 56), "instance"),
    "topk_9_of_256": topk(64, 9, 256),
    "patches_colours": patches(like(8, 3, 224, 224, dtype=FP32), (43, 43), colours=True),
    "patches_3d": patches(like(8, 2, 16, 56, 56), (5, 7, 7)),
    "exact_add": (
        "exact_add",
        (like(64, 68, dtype=torch.int64), like(8, 64, dtype=torch.float64)),
        "ieee",
    ),
}


class Driver:
    """Knows a target and nothing else: enough to compile, not to launch."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def cuobjdump(cubin: bytes, option: str) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def facts(compiled) -> dict:
    """Registers, spills (SASS accesses to local memory), shared bytes, matrix and TMA use."""
    ptx, cubin = compiled.asm["ptx"], compiled.asm["cubin"]
    usage, sass = cuobjdump(cubin, "--dump-resource-usage"), cuobjdump(cubin, "--dump-sass")
    return {
        "kernel": compiled.metadata.name,
        "registers": int(re.search(r"\bREG:(\d+)", usage)[1]),
        "spills": len(re.findall(r"\b(?:STL|LDL)\b", sass)),
        "shared": compiled.metadata.shared,
        "wgmma": ptx.count("wgmma.mma_async"),
        "mma": ptx.count("mma.sync"),
        "tcgen05": ptx.count("tcgen05.mma"),
        "tma": ptx.count("cp.async.bulk.tensor"),
        "cp_async": ptx.count("cp.async.c"),
        "instructions": len(re.findall(r"/\*[0-9a-f]{4,}\*/ +\S", sass)),
    }


def main(architecture: str, names: list[str]) -> None:
    driver.set_active(Driver(int(architecture.removeprefix("sm_"))))
    tuning.architecture = lambda device: architecture
    compiled = []
    run = triton.JITFunction.run
    triton.JITFunction.run = lambda self, *args, warmup, **kwargs: compiled.append(
        run(self, *args, warmup=True, **kwargs)
    )
    for name in names or CASES:
        op, arguments, precision = CASES[name]
        tuning.conv_precision = lambda x, precision=precision: precision
        compiled.clear()
        KERNELS[op].run(*arguments)
        for kernel in compiled:
            line = {
                "triton": triton.__version__,
                "case": name,
                "architecture": architecture,
                **facts(kernel),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

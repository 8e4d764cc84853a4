"""CUDA C++ kernels, reached through `torch.ops.fastconv_cuda`."""

from __future__ import annotations

from functools import cache

import torch

from fastconv.backends import Kernel
from fastconv.backends.cuda import channel_reduce, conv_reduce, patches, topk_merge


@cache
def unavailable() -> str | None:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    try:
        import fastconv._C_cuda  # noqa: F401
    except ModuleNotFoundError:
        return (
            "fastconv was installed without its CUDA kernels; install it again with "
            "FASTCONV_CUDA=1, which says what is missing"
        )
    except ImportError as error:
        return f"its library does not fit this torch ({error}); install fastconv again"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return None


KERNELS = {
    "channel_reduce": Kernel(
        channel_reduce.run, channel_reduce.supports, frozenset({"candidates"})
    ),
    "conv_reduce": Kernel(
        conv_reduce.run, conv_reduce.supports, frozenset({"post_ops", "candidates"})
    ),
    "topk_merge": Kernel(topk_merge.run, topk_merge.supports),
    "gather_patches": Kernel(patches.gather, patches.gather_supports),
    "place_patches": Kernel(patches.place, patches.place_supports),
}

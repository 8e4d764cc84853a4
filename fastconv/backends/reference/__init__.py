"""Plain torch: ground truth and fallback, on any device and dtype."""

from __future__ import annotations

from fastconv.backends import Kernel
from fastconv.backends.reference.channel_normalize import channel_normalize
from fastconv.backends.reference.channel_reduce import channel_reduce
from fastconv.backends.reference.conv_reduce import conv_reduce
from fastconv.backends.reference.exact_add import exact_add
from fastconv.backends.reference.gather_patches import gather_patches
from fastconv.backends.reference.paste_patches import paste_patches
from fastconv.backends.reference.place_patches import place_patches
from fastconv.backends.reference.shrink_colours import shrink_colours
from fastconv.backends.reference.topk_merge import topk_merge


def unavailable() -> str | None:
    return None


def _always(*args: object) -> None:
    return None


_TAKES = {
    "conv_reduce": frozenset({"post_ops", "candidates"}),
    "channel_reduce": frozenset({"candidates"}),
}
KERNELS = {
    op.__name__: Kernel(op, _always, _TAKES.get(op.__name__, frozenset()))
    for op in (
        conv_reduce,
        channel_reduce,
        channel_normalize,
        topk_merge,
        gather_patches,
        paste_patches,
        place_patches,
        shrink_colours,
        exact_add,
    )
}

"""Things that Triton or the driver may get wrong, each tried in a process of its own."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from device_stages.cases import channels_last, draw, set_precision
from device_stages.common import Suite
from fastconv.backends.triton import tuning
from fastconv.ops.conv_reduce import conv_reduce


@triton.jit
def copy_box_kernel(x, out, box: tl.constexpr, width: tl.constexpr):
    """out [box, width] = the box at the corner of a descriptor."""
    row = tl.arange(0, box)[:, None]
    tl.store(out + row * width + tl.arange(0, width)[None, :], x.load([0, 0]))


def overlapping_strides(suite: Suite) -> str | None:
    """A descriptor whose rows overlap, as a stem convolution with few channels would like it."""
    x = torch.arange(256, device=suite.device).bfloat16()
    view = x.as_strided((16, 32), (8, 1))
    out = torch.full((16, 32), torch.nan, device=suite.device).bfloat16()
    view_box = TensorDescriptor(x, list(view.shape), [8, 1], [16, 32])
    copy_box_kernel[(1,)](view_box, out, box=16, width=32, num_warps=4, enable_fp_fusion=False)
    return None if torch.equal(out, view) else "the box differs from the strided view"


def odd_parity_planes(suite: Suite) -> str | None:
    """Stride 2 over odd height and width: the planes differ in size."""
    return _conv_differs(suite, (3, 64, 57, 55), stride=2)


def eight_warps(suite: Suite) -> str | None:
    """The tap loop with 8 warps against the same with 4: it has been miscompiled before."""
    if suite.smoke:
        return None
    wrong = []
    chosen = {name: getattr(tuning, name) for name in ("conv_tma", "conv_pointer")}
    for warps in (4, 8):
        for name, choose in chosen.items():
            changed = lambda *a, choose=choose, warps=warps, **k: choose(*a, **k)._replace(  # noqa: E731
                warps=warps
            )
            setattr(tuning, name, changed)
        for shape in ((3, 64, 57, 55), (3, 60, 57, 55)):  # kernel A, kernel B
            found = _conv_differs(suite, shape, stride=1)
            wrong += [f"{warps} warps, {shape}: {found}"] if found else []
    return "; ".join(wrong) or None


def _conv_differs(suite: Suite, shape: tuple[int, ...], stride: int) -> str | None:
    set_precision("tf32")
    torch.backends.cudnn.enabled = False  # of the reference: its transforms would round
    shape = (1, 8, 9, 7) if suite.smoke else shape
    x = channels_last(draw(shape, torch.bfloat16, suite.device, exact=True))
    weight = draw((65, shape[1], 3, 3), torch.bfloat16, suite.device, exact=True)
    got = conv_reduce(x, weight, None, stride, 1, backend="triton")
    wanted = conv_reduce(x.double(), weight.double(), None, stride, 1, backend="reference")
    for name in ("sum", "max", "argmax", "argmin", "positive"):
        if not torch.equal(getattr(got, name), getattr(wanted, name).to(getattr(got, name).dtype)):
            return f"{name} differs from float64"
    return None


PROBES = {probe.__name__: probe for probe in (overlapping_strides, odd_parity_planes, eight_warps)}

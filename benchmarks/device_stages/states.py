"""Is it right? The running states, which must stay on the device, and a whole run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import nn

from device_stages.cases import draw, set_precision
from device_stages.common import Suite
from fastconv import dispatch
from fastconv.format.result import LayerInfo
from fastconv.geometry import FieldMap
from fastconv.measure.layer_state import LayerState, Measures
from fastconv.measure.patches import Display, PatchSource
from fastconv.measure.peaks import listed_peaks, sample_peaks
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.reduction import CandidateLists

ROUNDING = 1e-3  # share of the largest value of a layer, after all layers before it


def kernel(backend: str, op: str):
    return dispatch.load(backend).KERNELS[op].run


def exact_sums(suite: Suite) -> str | None:
    """Limbs as plain torch adds them."""
    values = draw((64, 33), torch.float64, suite.device, exact=False)
    values *= torch.exp2(torch.randint(-1000, 1000, values.shape, device=suite.device).double())
    sums = torch.zeros((2, 33, 68), dtype=torch.int64, device=suite.device)
    kernel("triton", "exact_add")(sums[0], values)
    kernel("reference", "exact_add")(sums[1], values)
    return None if torch.equal(*sums) else "differs from the reference"


def peaks(suite: Suite) -> str | None:
    """Those of the values listed above a threshold, and those of the whole activation."""
    x = draw((5, 7, 13, 11), torch.float32, suite.device, exact=True)
    threshold = torch.full((7,), 1.0, device=suite.device)
    lists = CandidateLists.create(threshold, 800, largest=True)
    kernel("triton", "channel_reduce")(x, None, None, None, None, lists)
    fields = (FieldMap.affine(extent=3),) * 2
    info = LayerInfo("x", "x", "Conv2d", "conv", 7, (13, 11), fields, "exact")
    wanted, at = sample_peaks(x, info, 2, largest=True)
    got, places = listed_peaks(lists, 5, info, 2)
    reached = wanted >= 1
    same = torch.equal(places, torch.where(reached, at, -1))
    return None if same and torch.equal(got[reached], wanted[reached]) else "differs"


def running_states(suite: Suite) -> str | None:
    """Batches are taken without a wait for the device, with the bits of the CPU."""
    channels, batch, size = (5, 4, (9, 7)) if suite.smoke else (96, 32, (28, 28))
    fields = (FieldMap.affine(2, -3, 11), FieldMap.affine(2, -3, 11))
    info = LayerInfo("x", "x", "Conv2d", "conv", channels, size, fields, "exact")
    measures = Measures(
        stats=True,
        quantiles=True,
        topk=9,
        hit_sets={"topk": True, "bottomk": False},
        hits_per_sample=1,
        patches=True,
    )
    inputs = [torch.rand(batch, 3, 2 * size[0], 2 * size[1]) for _ in range(4)]
    values = [draw((batch, channels, *size), torch.float32, suite.device, exact=True)] * 4
    display = Display((0.0,) * 3, (1.0,) * 3)
    results = []
    for place in (suite.device, torch.device("cpu")):
        state = LayerState(info, measures, tuple(inputs[0].shape[2:]))
        backend = "triton" if place == suite.device else "reference"
        for number, (x, value) in enumerate(zip(inputs, values, strict=True)):
            x, value = x.to(place), value.to(place)
            rows = torch.arange(number * batch, (number + 1) * batch, device=place)
            with waits_forbidden() if number and place.type == "cuda" else contextlib.nullcontext():
                counts = state.histogram(place)
                reduction = channel_reduce(value, histogram=counts, backend=backend)
                state.update(reduction, {}, rows, PatchSource(x, display))
        results.append(state.result(None))
    device, cpu = results
    wrong = [n for n in cpu.stats if (device.stats[n] != cpu.stats[n]).any()]
    for (name, got, kept), (_, wanted, pictures) in zip(
        device.hit_sets(), cpu.hit_sets(), strict=True
    ):
        same = [(got[n] == wanted[n]).all() for n in ("sample", "position", "box")]
        wrong += [] if all(same) and (kept[:] == pictures[:]).all() else [name]
    wrong += ["histogram"] if (device.histogram != cpu.histogram).any() else []
    return f"differs from the CPU in {wrong}" if wrong else None


@contextlib.contextmanager
def waits_forbidden() -> Iterator[None]:
    """A host that waits for the device raises an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def depthwise_network() -> nn.Module:
    """Depthwise convolutions, the rows of which CUDA C++ has kernels for, between others."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU6()]
    for kernel, stride in ((3, 1), (5, 2), (7, 1), (3, 2)):
        layers += [nn.Conv2d(24, 24, kernel, stride, kernel // 2, groups=24, bias=False)]
        layers += [nn.BatchNorm2d(24), nn.ReLU6(), nn.Conv2d(24, 24, 1)]
    return nn.Sequential(*layers)


def whole_run(suite: Suite, hits_per_sample: int, network: str = "resnet18") -> str | None:
    """A network on the device beside the CPU, hits included; verify recomputes them there."""
    import models

    import fastconv

    set_precision("ieee")
    torch.manual_seed(0)
    model = (depthwise_network if network == "depthwise" else models.resnet18)().eval()
    data = torch.rand(12, 3, 32, 32) if suite.smoke else torch.rand(200, 3, 224, 224)
    options = {"batch_size": 8 if suite.smoke else 64, "progress": False, "samples": True}
    options |= {"hits_per_sample": hits_per_sample, "topk": 5}
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            fastconv.extract(model, data, f"{folder}/{kind}.h5", device=kind, **options)
            for kind in (suite.device.type, "cpu")
        ]
        for name in runs[0].layers:
            wrong += [f"{name} {what}" for what in _differences(*(run[name] for run in runs))]
        place = suite.device.type
        report = fastconv.verify(f"{folder}/{place}.h5", model, data, device=place)
        wrong += [] if report else [str(report)]
    return "; ".join(wrong[:5]) or None


def _differences(device, cpu) -> Iterator[str]:
    """Where the results of two devices for one layer are further apart than rounding explains."""
    scale = max(abs(cpu.stats["max"]).max(), abs(cpu.stats["min"]).max())
    for what in ("mean", "min", "max"):
        error = abs(device.stats[what] - cpu.stats[what]).max() / scale
        if not error < ROUNDING:
            yield f"{what} is off by {error:.1e} of the largest value"
    if (device.stats["count"] != cpu.stats["count"]).any():
        yield "count"
    found, wanted = device.topk, cpu.topk
    error = abs(found.values - wanted.values).max() / scale
    if not error < ROUNDING:
        yield f"values of hits are off by {error:.1e} of the largest value"
    apart = np.diff(wanted.values, axis=1) < -4 * ROUNDING * scale  # from the next
    clear = np.ones(wanted.values.shape, bool)
    clear[:, 1:] &= apart
    clear[:, :-1] &= apart
    clear[:, -1] = False  # what comes after the last is not known
    for what in ("sample", "position"):
        differ = getattr(found, what) != getattr(wanted, what)
        differ = (differ.any(-1) if differ.ndim > 2 else differ) & clear
        if differ.sum() > 0.01 * clear.sum():  # a sample may have two near maxima
            yield f"{what} of {differ.sum()} of {clear.sum()} clear hits"


CHECKS = {
    "exact sums": exact_sums,
    "peaks": peaks,
    "running states": running_states,
    "whole run": partial(whole_run, hits_per_sample=1),
    "whole run, depthwise": partial(whole_run, hits_per_sample=1, network="depthwise"),
    "whole run, three hits of a sample": partial(whole_run, hits_per_sample=3),
}

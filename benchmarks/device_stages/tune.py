"""Tile shapes for the layers with the worst ratios, and the price of each option.

A candidate may win only if its output equals that of the shipped configuration: exactly in extrema,
positions and counts, to float32 rounding in the sums.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from roofline import LAYERS, Layer

from device_stages.cases import geometry, layer_tensors, set_precision
from device_stages.common import Suite
from fastconv.backends.triton import tuning
from fastconv.ops.conv_reduce import conv_reduce

WORST = 5
EXACT = ("argmax", "argmin", "positive", "nonfinite")


def run(suite: Suite) -> None:
    for layer in worst(suite):
        suite.check(layer.name, partial(sweep, suite, layer))
    suite.check("options", partial(options, suite))


def worst(suite: Suite) -> list[Layer]:
    """The layers furthest behind their floor in device_fast.json; without one, the first five."""
    path = suite.out / "device_fast.json"
    if suite.smoke:
        return [LAYERS[1].smoke()]
    if not path.exists():
        return LAYERS[:WORST]
    table = json.loads(path.read_text())["result"].get("bf16", {})

    def behind(layer: Layer) -> float:
        found = table.get(layer.name)
        return -found["microseconds"]["fused"] / found["predicted"]["fused"] if found else 0.0

    return sorted(LAYERS, key=behind)[:WORST]


def candidates(suite: Suite) -> Iterator[tuple[int, int, int, int]]:
    """(block_m, block_n, warps, stages); block_k and the tiles of a program stay."""
    if suite.smoke:
        yield 32, 64, 4, 1
        return
    for block_m, block_n, warps, stages in product((64, 128), (64, 128, 256), (4, 8), (2, 3, 4)):
        if 32 <= block_m * block_n // (warps * 32) <= 64:  # results of one thread
            yield block_m, block_n, warps, stages


def sweep(suite: Suite, layer: Layer) -> str | None:
    set_precision("bf16")
    x, weight, bias = layer_tensors(layer, "bf16", suite.device)
    call = partial(conv_reduce, x, weight, bias, **geometry(layer), backend="triton")
    wanted = call()
    found = {"shipped": suite.time(call)}
    name = {True: "conv_direct", False: "conv_tma" if layer.c_in % 8 == 0 else "conv_pointer"}
    name = name[layer.groups > 1]
    chosen = getattr(tuning, name)
    wrong = []
    for m, n, warps, stages in candidates(suite):
        if suite.left() < 30:
            break
        change = {"block_m": m, "block_n": n, "warps": warps, "stages": stages}
        setattr(tuning, name, lambda *a, change=change, **k: chosen(*a, **k)._replace(**change))
        try:
            bad = differs(wanted, call())
            key = f"{m}x{n}, {warps} warps, {stages} stages"
            if bad:
                wrong.append(f"{key}: {bad}")
            else:
                found[key] = suite.time(call)
        except Exception as error:  # noqa: BLE001 - out of registers or shared memory: not a winner
            found.setdefault("refused", []).append(f"{change}: {str(error)[:200]}")
        finally:
            setattr(tuning, name, chosen)
    timed = {key: value for key, value in found.items() if isinstance(value, float)}
    found["best"] = min(timed, key=timed.__getitem__)
    suite.result[layer.name] = {"kernel": name, **found}
    print(f"{layer.name}: shipped {timed['shipped']:.0f} us, best {found['best']} "
          f"{timed[found['best']]:.0f} us", flush=True)  # fmt: skip
    return "; ".join(wrong) or None


def differs(wanted, got) -> str | None:
    """A field in which two results are further apart than another order of sums explains."""
    for name in EXACT:
        share = float((getattr(wanted, name) != getattr(got, name)).double().mean())
        if share > 1e-3:  # a rounding at zero or between near ties may flip a few
            return f"{name} differs in {share:.1%}"
    for name in ("sum", "sumsq", "min", "max"):
        a, b = getattr(wanted, name).double(), getattr(got, name).double()
        if not torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max())):
            return f"{name} differs"
    return None


def options(suite: Suite) -> None:
    """What each option adds to the fused 3x3 of ResNet-50's first stage."""
    layer = LAYERS[1].smoke() if suite.smoke else LAYERS[1]
    x, weight, bias = layer_tensors(layer, "bf16", suite.device)
    scale = torch.ones(layer.c_out, device=suite.device)
    call = partial(conv_reduce, x, weight, bias, **geometry(layer), backend="triton")
    suite.result["options"] = {
        name: suite.time(partial(call, **option))
        for name, option in {
            "none": {},
            "affine, relu": {"scale": scale, "shift": scale, "activation": "relu"},
            "gelu": {"activation": "gelu"},
            "histogram": {"histogram": True},
            "activation written": {"return_activation": True},
        }.items()
    }

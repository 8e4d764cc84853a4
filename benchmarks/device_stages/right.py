"""Is it right? Probes, every kernel against float64, the same bits again, memory errors.

While the native libraries are built, Triton's kernels are looked at; then CUDA's, beside the
sanitizer and whole runs; what takes long and differs little comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from roofline import LAYERS, Layer
from torch import Tensor

from device_stages import cuda, probes, states
from device_stages.build import Build
from device_stages.cases import DTYPES, draw, geometry, layer_tensors, set_precision
from device_stages.common import LIMIT, Suite
from fastconv.ops.channel_normalize import channel_normalize
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.ops.conv_reduce import conv_reduce
from fastconv.ops.gather_patches import gather_patches
from fastconv.ops.topk_merge import empty_topk, topk_merge

FIELDS = ("sum", "sumsq", "min", "max", "argmax", "argmin", "positive", "nonfinite")
FIRST, SECOND = 90.0, 75.0  # seconds: what hangs must not take the stage
SHAPES = [
    *(replace(layer, batch=5) for layer in LAYERS if layer.results < 3e9),
    Layer("odd 3x3 s2 33->65@57x55", 33, 65, (57, 55), 3, 2, batch=5),
    Layer("odd aligned 3x3 s2 64->65@57x55", 64, 65, (57, 55), 3, 2, batch=5),
    Layer("1x1 s2 64->96@27", 64, 96, (27, 27), 1, 2, batch=5),
    Layer("groups 64->64@17", 64, 64, (17, 17), 3, groups=2, batch=5),
    Layer("groups of 4 128@17", 128, 128, (17, 17), 3, groups=32, batch=5),
    Layer("1d 1->17@4001 s4", 1, 17, (4001,), 9, 4, batch=5),
    Layer("1d aligned 32->40@1003", 32, 40, (1003,), 5, batch=5),
    Layer("3d 3->17@9x21x23 s2", 3, 17, (9, 21, 23), 3, 2, batch=5),
    Layer("small map 2048->100@2x2", 2048, 100, (2, 2), 1, batch=5),
]


def run(suite: Suite) -> None:
    build = Build(suite)
    first, second = (LIMIT, LIMIT) if suite.smoke else (FIRST, SECOND)
    probing = suite.parts([f"probe {name}" for name in probes.PROBES], first)
    suite.check_together(probing | suite.shares("checks", 10, first))
    suite.check("build", build.wait)
    if not suite.smoke:
        suite.check("ceilings", partial(keep_ceilings, suite))
    built = suite.parts(["small triton"]) if suite.smoke else cuda.runs(suite, second)
    suite.check_together(suite.shares("states", 4, second) | built)
    if not suite.smoke:
        last = {"shared cases, triton": partial(cuda.tests, suite, "shared cases, triton", LIMIT)}
        suite.check_together(suite.shares("more", 8) | last)
    names = [name for every in SHARED.values() for name, _ in every(suite)]
    suite.result["checks"] = names
    suite.summary += [f"{len(names)} checks of Triton and whole runs"]
    sanitized = [f"{tool}, {backend}" for tool, backend in cuda.SANITIZED]
    for name in (*cuda.TESTS, *sanitized, "build, seconds"):
        suite.summary += [f"{name}: {suite.result[name]}"[:150]] if name in suite.result else []


def part(suite: Suite, name: str) -> None:
    """One probe, one share of the checks, or small cases for the sanitizer."""
    what, *rest = name.split()
    if what == "probe":
        wrong = [probes.PROBES[rest[0]](suite)]
    elif what == "small":
        wrong = cuda.small(suite, rest[0])
    else:
        share, shares = map(int, rest)
        every = list(SHARED[what](suite))
        for check, look in every[share::shares]:
            suite.check(check, look)
        wrong = suite.failures
    if any(wrong):
        raise SystemExit("\n".join(filter(None, wrong)))


def checks(suite: Suite) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """Every check of a kernel by name; it returns what is wrong. The worst risks come first."""
    shapes = [SHAPES[1].smoke(), SHAPES[8].smoke()] if suite.smoke else SHAPES
    for layer in shapes:
        yield f"conv bf16 {layer.name}", partial(conv_exact, suite, layer, "bf16")
    for layer in shapes:
        yield f"same bits {layer.name}", partial(conv_same_bits, suite, layer)
    for layout in ("first", "last"):
        yield f"channel_reduce {layout}", partial(reduce_exact, suite, layout)
        for mode in ("instance", "l1", "l2"):
            yield f"normalize {mode} {layout}", partial(normalize, suite, mode, layout)
    yield "topk_merge", partial(topk, suite)
    yield "gather_patches", partial(gather, suite)


def more(suite: Suite) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """The same convolutions with other operands."""
    for layer in () if suite.smoke else SHAPES:
        for math_type in ("tf32", "fp16", "ieee"):
            yield f"conv {math_type} {layer.name}", partial(conv_exact, suite, layer, math_type)


def whole(suite: Suite) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """Running states and whole runs, which may use every library."""
    for name, check in states.CHECKS.items():
        yield name, partial(check, suite)


SHARED = {"checks": checks, "states": whole, "more": more}  # in shares, by what a part is called


def conv_exact(suite: Suite, layer: Layer, math_type: str) -> str | None:
    """Exact values with NaN and inf among them: every field but sumsq has the bits of float64."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(mode=True, warn_only=True)  # poisons what torch.empty gives
    set_precision(math_type)
    torch.backends.cudnn.enabled = False  # of the reference: its transforms round and spread NaN
    x, weight, bias = layer_tensors(layer, math_type, suite.device, exact=True)
    x[0, 0].view(-1)[:1] = torch.nan
    x[-1, -1].view(-1)[-1:] = torch.inf
    for memory in (x, x.contiguous()):
        options = {**geometry(layer), "activation": "relu", "histogram": True}
        got = conv_reduce(memory, weight, bias, **options, backend="triton")
        wide = [t.double() for t in (x, weight, bias)]
        wanted = conv_reduce(*wide, **options, backend="reference")
        for name in (*FIELDS, "histogram"):
            a, b = getattr(got, name), getattr(wanted, name)
            if name == "sumsq" and torch.allclose(a, b, rtol=1e-5):
                continue  # squares of long sums do not fit float32 exactly
            if not torch.equal(a, b.to(a.dtype)):
                return f"{name} differs in {int((a != b).sum())} of {a.numel()} places"
        if suite.smoke:  # the interpreter truncates to bfloat16
            continue
        options = {**geometry(layer), "return_activation": True}
        a = conv_reduce(memory, weight, bias, **options, backend="triton").activation
        b = conv_reduce(*wide, **options, backend="reference").activation.float().to(a.dtype)
        if not torch.equal(a.nan_to_num(7e4), b.nan_to_num(7e4)):
            return f"what is written differs in {int((a != b).sum())} of {a.numel()} places"
    return None


def conv_same_bits(suite: Suite, layer: Layer) -> str | None:
    """Twenty times the same; a batch of 64 as 1, 7 and 56."""
    repeats, batch, split = (1, 3, [1, 2]) if suite.smoke else (20, 64, [1, 7, 56])
    layer = replace(layer, batch=batch)
    set_precision("tf32")
    # exact in the interpreter, where the order of numpy's products depends on addresses
    x, weight, bias = layer_tensors(layer, "bf16", suite.device, exact=suite.smoke)
    options = {**geometry(layer), "backend": "triton"}
    whole = conv_reduce(x, weight, bias, **options)
    for _ in range(repeats):
        if wrong := _unequal(whole, conv_reduce(x, weight, bias, **options)):
            return f"a repeat differs in {wrong}"
    parts = [conv_reduce(p, weight, bias, **options) for p in x.split(split)]
    joined = [torch.cat([getattr(p, name) for p in parts]) for name in FIELDS]
    wrong = [
        n for n, j in zip(FIELDS, joined, strict=True) if not torch.equal(getattr(whole, n), j)
    ]
    return f"the split batch differs in {wrong}" if wrong else None


def _unequal(a, b) -> list[str]:
    return [name for name in FIELDS if not torch.equal(getattr(a, name), getattr(b, name))]


def _laid_out(suite: Suite, layout: str, *, exact: bool) -> Tensor:
    shape = (3, 9, 7, 9) if suite.smoke else (5, 67, 61, 59)
    x = draw(shape, torch.float32, suite.device, exact=exact)
    return x.contiguous(memory_format=torch.channels_last) if layout == "last" else x


def reduce_exact(suite: Suite, layout: str) -> str | None:
    x = _laid_out(suite, layout, exact=True)
    x[0, 0, 0, 0] = torch.nan
    x[1, 1] = torch.inf
    got = channel_reduce(x, histogram=True, backend="triton")
    wanted = channel_reduce(x, histogram=True, backend="reference")
    wrong = _unequal(got, wanted)
    wrong += [] if torch.equal(got.histogram, wanted.histogram) else ["histogram"]
    return f"differs in {wrong}" if wrong else None


def normalize(suite: Suite, mode: str, layout: str) -> str | None:
    x = _laid_out(suite, layout, exact=False)
    got = channel_normalize(x, mode, backend="triton").double()
    wanted = channel_normalize(x.double(), mode, backend="reference")
    error = float((got - wanted).abs().max() / wanted.abs().max())
    return f"error {error:.1e} of the largest value" if error > 1e-6 else None


def topk(suite: Suite) -> str | None:
    channels, count = (3, 20) if suite.smoke else (515, 300)
    values = draw((channels, count), torch.float32, suite.device, exact=True)
    samples = torch.randint(-1, 40, values.shape, device=suite.device)
    old = empty_topk(channels, 9, suite.device)[:3]
    got = topk_merge(*old, values, samples, samples + 3, backend="triton")
    wanted = topk_merge(*old, values, samples, samples + 3, backend="reference")
    same = all(
        torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(got, wanted, strict=True)
    )
    return None if same else "differs from the reference"


def gather(suite: Suite) -> str | None:
    x = draw((5, 3, 61, 59), torch.bfloat16, suite.device, exact=False)
    index = torch.randint(0, 5, (40,), device=suite.device)
    start = torch.randint(-20, 60, (40, 2), device=suite.device)
    got = gather_patches(x, index, start, (17, 19), backend="triton")
    wanted = gather_patches(x, index, start, (17, 19), backend="reference")
    return None if torch.equal(got, wanted) else "differs from the reference"


def keep_ceilings(suite: Suite) -> None:
    found = suite.result["ceilings"] = ceilings()
    suite.summary += [f"{name}: {value:.2f}" for name, value in found.items()]


def ceilings() -> dict[str, float]:
    """What this device sustains: copy bandwidth, and 8192^3 products."""
    import triton.testing

    found = {}
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    milliseconds = triton.testing.do_bench(lambda: target.copy_(source), return_mode="median")
    found["copy, TB/s"] = 2 * source.numel() / milliseconds / 1e9
    for math_type in ("bf16", "tf32"):
        set_precision(math_type)
        a = torch.randn(8192, 8192, device="cuda").to(DTYPES[math_type])
        milliseconds = triton.testing.do_bench(lambda a=a: a @ a, return_mode="median")
        found[f"{math_type} product, TFLOP/s"] = 2 * 8192**3 / milliseconds / 1e9
    return found

"""The C++ convolution: bits that no batch, thread, layout or packing changes."""

from __future__ import annotations

import pytest
import torch
from helpers.backend_cases import (
    FIELDS,
    assert_same_bits,
    every_isa,
    layouts,
    needs_native,
    threads,
)
from helpers.convolutions import CASES, FORMATS, kernel_arguments, make

from fastconv import conv_reduce
from fastconv.backends import cpu
from fastconv.backends.cpu.conv_reduce import pack_weight

pytestmark = needs_native


@every_isa
@pytest.mark.parametrize("case", CASES)
def test_bits_do_not_depend_on_batch_threads_or_layout(case, isa):
    x, w, kwargs = make(case)
    many = torch.cat([x, torch.randn(13, *x.shape[1:])])
    whole = conv_reduce(many, w, activation="silu", histogram=True, backend="cpu", **kwargs)
    with threads(1):
        single = conv_reduce(many, w, activation="silu", histogram=True, backend="cpu", **kwargs)
        parts = [
            conv_reduce(part, w, activation="silu", histogram=True, backend="cpu", **kwargs)
            for part in many.split(1)
        ]
    assert_same_bits(whole, single)
    for name in FIELDS:
        assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts]))
    assert torch.equal(whole.histogram, single.histogram)
    assert torch.equal(whole.histogram, sum(p.histogram for p in parts))
    for _, laid in layouts(many):
        assert_same_bits(whole, conv_reduce(laid, w, activation="silu", backend="cpu", **kwargs))


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ["stem", "1x1", "3x3", "narrow_stride", "3d_32", "groups_32"])
def test_bits_do_not_depend_on_the_layout_of_the_weights(case, dtype, isa):
    x, w, kwargs = make(case, dtype)
    want = conv_reduce(x, w, backend="cpu", **kwargs)
    for name, laid in layouts(w):
        assert_same_bits(want, conv_reduce(x, laid, backend="cpu", **kwargs))
        assert name == "contiguous" or w[0, 0].numel() == 1 or not laid.is_contiguous()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_batch_of_64_has_the_bits_of_its_samples(count):
    _, w, kwargs = make("late")
    x = torch.randn(64, *make("late")[0].shape[1:])
    with threads(count):
        whole = conv_reduce(x, w, backend="cpu", **kwargs)
        parts = [conv_reduce(part, w, backend="cpu", **kwargs) for part in x.split(7)]
    for name in FIELDS:
        assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts]))


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_packed_weights_give_the_same_bits(case, dtype, isa):
    x, w, kwargs = make(case, dtype)
    run, args = cpu.KERNELS["conv_reduce"].run, kernel_arguments(x, w, kwargs)
    for weight in (w, w.contiguous(memory_format=FORMATS.get(w.ndim, torch.contiguous_format))):
        packed = pack_weight(weight, args[3], args[5], kwargs.get("groups", 1))
        plain = run(*args, "relu", None, return_activation=True)
        again = run(*args, "relu", None, return_activation=True, packed=packed)
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_weights_packed_for_another_convolution_are_refused():
    x, w, kwargs = make("3x3")
    packed = pack_weight(w[:, :5].contiguous(), [1, 1], [1, 1], 1)
    with pytest.raises(RuntimeError, match="packed for another convolution"):
        cpu.KERNELS["conv_reduce"].run(
            *kernel_arguments(x, w, kwargs), None, None, return_activation=False, packed=packed
        )

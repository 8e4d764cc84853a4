from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastconv import dispatch
from fastconv.errors import FastconvError
from fastconv.measure import exact_sum
from fastconv.measure.layer_state import Totals
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.ops.exact_add import exact_add

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def total(sums):
    return [Fraction(i, 1 << 1074) for i in exact_sum._integers(sums.numpy())]


@given(st.lists(FINITE, min_size=1, max_size=30))
def test_the_sum_is_the_mathematical_sum(values):
    sums = exact_sum.empty_sums(1)
    exact_add(sums, torch.tensor(values, dtype=torch.float64)[:, None])
    assert total(sums) == [sum(map(Fraction, values))]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_extremes_and_both_implementations(backend):
    module = dispatch.load(backend)
    if isinstance(module, str):
        pytest.skip(module)
    values = [5e-324, -1.7976931348623157e308, 1.7976931348623157e308, -0.0, 3.0, 2**-1022, -1e-310]
    sums = exact_sum.empty_sums(2)
    column = torch.tensor(values, dtype=torch.float64)
    module.KERNELS["exact_add"].run(sums, torch.stack([column, -column], 1))
    expected = sum(map(Fraction, values))
    assert total(sums) == [expected, -expected]


@pytest.mark.parametrize("split", [1, 7, 64])
def test_stored_bits_do_not_depend_on_the_split(split):
    values = torch.randn(200, 17, dtype=torch.float64) * torch.logspace(-20, 20, 200)[:, None]
    whole, parts = exact_sum.empty_sums(17), exact_sum.empty_sums(17)
    exact_add(whole, values)
    for chunk in reversed(values.split(split)):
        exact_add(parts, chunk)
    np.testing.assert_array_equal(
        exact_sum.canonical(whole.numpy()), exact_sum.canonical(parts.numpy())
    )


def test_mean_and_variance_are_rounded_once():
    values = 1e8 + torch.randn(1000, 3, dtype=torch.float64)  # sumsq - sum^2 / n would lose this
    sums, squares = exact_sum.empty_sums(3), exact_sum.empty_sums(3)
    exact_add(sums, values)
    exact = [[Fraction(v) for v in column] for column in values.T.tolist()]
    for c, column in enumerate(exact):
        for v in column:
            high = float(v * v)  # the square as two float64: exact
            for part in (high, float(v * v - Fraction(high))):
                row = torch.zeros(1, 3, dtype=torch.float64)
                row[0, c] = part
                exact_add(squares, row)
    mean, var = exact_sum.mean_and_var(sums.numpy(), squares.numpy(), np.full(3, 1000))
    for c, column in enumerate(exact):
        m = sum(column) / 1000
        assert mean[c] == float(m)
        assert var[c] == float(sum((v - m) ** 2 for v in column) / 1000)


def test_no_values_give_nan():
    none = exact_sum.empty_sums(2).numpy()
    mean, var = exact_sum.mean_and_var(none, none, np.zeros(2, np.int64))
    assert np.isnan(mean).all() and np.isnan(var).all()


def test_overflowed_squares_are_refused():
    totals = Totals(1, quantiles=False)
    for value in (1.0, 1e200, 2.0):
        totals.update(channel_reduce(torch.full((1, 1, 3), value, dtype=torch.float64)))
    with pytest.raises(FastconvError, match="overflow float64"):
        totals.arrays()

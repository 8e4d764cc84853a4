from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastconv.errors import FastconvError
from fastconv.measure import exact_sum
from fastconv.ops import exact_add

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture(params=["native", "numpy"])
def either(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(exact_add.dispatch, "load", lambda name: "not built")


def total(sums):
    return [Fraction(i, 1 << 1074) for i in exact_sum._integers(sums.numpy())]


@given(st.lists(FINITE, min_size=1, max_size=30))
def test_the_sum_is_the_mathematical_sum(values):
    sums = exact_sum.empty_sums(1)
    exact_sum.add(sums, torch.tensor(values, dtype=torch.float64)[:, None])
    assert total(sums) == [sum(map(Fraction, values))]


def test_extremes_and_both_implementations(either):
    values = [5e-324, -1.7976931348623157e308, 1.7976931348623157e308, -0.0, 3.0, 2**-1022, -1e-310]
    sums = exact_sum.empty_sums(2)
    column = torch.tensor(values, dtype=torch.float64)
    exact_sum.add(sums, torch.stack([column, -column], 1))
    expected = sum(map(Fraction, values))
    assert total(sums) == [expected, -expected]


@pytest.mark.parametrize("split", [1, 7, 64])
def test_stored_bits_do_not_depend_on_the_split(split):
    values = torch.randn(200, 17, dtype=torch.float64) * torch.logspace(-20, 20, 200)[:, None]
    whole, parts = exact_sum.empty_sums(17), exact_sum.empty_sums(17)
    exact_sum.add(whole, values)
    for chunk in reversed(values.split(split)):
        exact_sum.add(parts, chunk)
    np.testing.assert_array_equal(
        exact_sum.canonical(whole.numpy()), exact_sum.canonical(parts.numpy())
    )


def test_mean_and_variance_are_rounded_once():
    values = 1e8 + torch.randn(1000, 3, dtype=torch.float64)  # sumsq - sum^2 / n would lose this
    sums, squares = exact_sum.empty_sums(3), exact_sum.empty_sums(3)
    exact_sum.add(sums, values)
    exact = [[Fraction(v) for v in column] for column in values.T.tolist()]
    for c, column in enumerate(exact):
        for v in column:
            high = float(v * v)  # the square as two float64: exact
            for part in (high, float(v * v - Fraction(high))):
                row = torch.zeros(1, 3, dtype=torch.float64)
                row[0, c] = part
                exact_sum.add(squares, row)
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
    with pytest.raises(FastconvError, match="overflow float64"):
        exact_sum.add(exact_sum.empty_sums(1), torch.tensor([[torch.inf]], dtype=torch.float64))

"""The C++ kernels list every value that reaches a threshold."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers.backend_cases import every_isa, layouts, needs_native
from helpers.convolutions import kernel_arguments, make

from fastconv.backends import cpu
from fastconv.reduction import CandidateLists

pytestmark = needs_native


@every_isa
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("case", ["3x3", "1x1_32", "depthwise", "bands", "1d", "3d", "groups"])
def test_lists_hold_what_reaches_the_threshold(case, largest, isa):
    x, w, kwargs = make(case)
    x = (x * 2).round()  # ties
    x[0, 0].view(-1)[3] = torch.nan
    x[-1, -1].view(-1)[5] = torch.inf
    run, args = cpu.KERNELS["conv_reduce"].run, kernel_arguments(x, w, kwargs)
    value = run(*args, "relu", None, return_activation=True)[-1]
    fill = partial(run, *args, "relu", None, return_activation=False)
    check_lists(lambda lists: fill(candidates=lists), value, largest=largest)


@every_isa
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("shape", [(3, 17, 5, 7), (2, 33, 9, 31), (1, 3, 2000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lists_of_an_activation(shape, dtype, largest, isa):
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 4).round().to(dtype)
    x.view(-1)[::17] = torch.nan
    x.view(-1)[1::23] = torch.inf
    x.view(-1)[2::23] = -0.0
    reduce = cpu.KERNELS["channel_reduce"].run
    for _, laid in layouts(x):
        check_lists(
            lambda lists, x=laid: reduce(x, None, None, None, None, lists), x, largest=largest
        )


def check_lists(fill, value, *, largest):
    value = value.flatten(2).float()
    n, channels, positions = value.shape
    finite = value.masked_fill(~value.isfinite(), 0)
    threshold = finite.transpose(0, 1).flatten(1).quantile(0.9 if largest else 0.3, dim=1)
    lists = CandidateLists.create(threshold, n * positions, largest=largest)
    plain, short = fill(lists), CandidateLists.create(threshold, 2, largest=largest)
    for one, other in zip(plain, fill(short), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(lists.counts, short.counts)
    for c in range(channels):
        row = value[:, c].flatten()
        reached = row >= threshold[c] if largest else row <= threshold[c]
        want = (reached & row.isfinite()).nonzero()[:, 0]
        places, order = lists.places[c, : lists.counts[c]].sort()
        assert torch.equal(places, want)
        assert torch.equal(lists.values[c, : lists.counts[c]][order], row[want])
        kept = short.places[c, : min(2, int(short.counts[c]))]
        assert set(kept.tolist()) <= set(want.tolist()) and len(set(kept.tolist())) == len(kept)

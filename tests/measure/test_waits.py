"""Taking a batch never asks a device for what it has computed: the host would have to wait."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import images, network
from helpers.waits import Waits

import fastconv
from fastconv.run.layer_sink import LayerSink


def test_what_is_looked_for_is_found():
    x = torch.tensor([1.0, 0.0, 2.0])
    with Waits() as waits:
        x[x > 0]
        bool((x > 0).any())
        (x > 0).nonzero()
        x[torch.arange(2)]
        torch.tensor([1, 2])
        x.cpu()
    assert waits.found == ["index", "_local_scalar_dense", "nonzero", "lift_fresh", "cpu"]
    x.tolist()
    assert waits.found[-1] == "cpu"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": "smallest", "stage": "act", "samples": True},
        {"hits_per_sample": 3, "order": "both"},
        {"patches": False, "quantiles": False, "dtype": "bfloat16"},
    ],
    ids=["default", "samples", "peaks", "few"],
)
def test_no_layer_of_no_batch_waits(options, tmp_path, monkeypatch):
    seen = []

    def watching(measure):
        def watched(self, *arguments):
            with Waits() as waits:
                value = measure(self, *arguments)
            seen.append(waits)
            return value

        return watched

    for name in ("output", "input"):
        monkeypatch.setattr(LayerSink, name, watching(getattr(LayerSink, name)))
    fastconv.extract(
        network(), images(48), tmp_path / "run.h5", batch_size=16, progress=False, **options
    )
    first, later = seen[:5], seen[5:]  # the first batch makes tables that are kept
    assert len(first) == 5 and len(later) == 10
    assert all(waits.seen > 20 for waits in later)
    assert [waits.found for waits in later] == [[]] * 10

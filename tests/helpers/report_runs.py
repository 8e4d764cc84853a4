"""Runs of made-up layers that hold everything a report can show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastconv.format.result import Rows
from fastconv.geometry import FieldMap
from fastconv.store.writer import write_run
from helpers import synthetic

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">/%2e&#0;'\""
SAMPLES = 24


def write(path, infos, *, seed=0, labels=3, maps=True, hostile=False, **options):
    """A run of these layers with everything that a file can hold."""
    results = []
    for info in infos:
        result, values = synthetic.layer_result(info, k=9, samples=SAMPLES, seed=seed, **options)
        flat = np.nan_to_num(values.reshape(*values.shape[:2], -1), posinf=5)
        for name, summary in (("samples_max", flat.max(2)), ("samples_mean", flat.mean(2))):
            setattr(result, name, Rows(summary.shape, [summary.astype(np.float32)]))
        if maps:
            synthetic.with_maps(result, values, samples=range(6))
        results.append(result)
    table = synthetic.sample_table(SAMPLES)
    table.labels = np.arange(SAMPLES) % labels
    if hostile:
        table.keys = [f"{HOSTILE}{i}" for i in range(SAMPLES)]
    config = synthetic.CONFIG | {"input_size": [7, 7], "model": HOSTILE if hostile else "Net"}
    write_run(path, config, iter(results), samples=table)
    return path


def plain_layers():
    """Layers of every rank; the last one sees the whole input."""
    head = synthetic.layer_info("head", 6, rank=0, kind="Linear")
    return [
        synthetic.layer_info("conv1", 40),
        synthetic.layer_info("layer1.0.conv/2#1", 7, rank=1, size=33),
        synthetic.layer_info("volume", 4, rank=3, size=4),
        replace(head, fields=(FieldMap.whole(7),) * 2, status="global"),
    ]

"""Tables of the shape that `fastconv.insight` gives, made up from a run's names alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd


def stand_in(classes=3, conditions=("rot15", "noise")):
    """A module with every function of `fastconv.insight` that the report calls."""

    def table(run, keys=((),), **columns):
        rows = [
            (name, i, *k)
            for name in run.layers
            for i in range(run[name].info.channels)
            for k in keys
        ]
        names = ["layer", "filter", *columns.pop("also", ())]
        frame = pd.DataFrame(rows, columns=names)
        rng = np.random.default_rng(len(frame))
        return frame.assign(**{name: make(rng, frame) for name, make in columns.items()})

    def uniform(low, high):
        return lambda rng, frame: rng.uniform(low, high, len(frame))

    def responses(run):
        return table(
            run,
            [(c,) for c in conditions],
            also=("condition",),
            mean_change=uniform(-1, 0.2),
            low=lambda rng, f: -np.abs(rng.normal(1, 0.2, len(f))),
            high=lambda rng, f: np.abs(rng.normal(0.2, 0.1, len(f))),
            max_change=uniform(-2, 0),
            rank_correlation=uniform(0, 1),
            invariance=uniform(0, 1),
            topk_overlap=uniform(0, 1),
        )

    def by_class(run, labels=None):
        return table(
            run,
            [(c,) for c in range(classes)],
            also=("class",),
            mean=uniform(-1, 1),
            effect=uniform(-2, 2),
            auroc=uniform(0.2, 1),
            selectivity=uniform(0, 1),
            q=uniform(0, 0.2),
        )

    def outcomes(run):
        return table(run, auroc_error=uniform(0, 1), r_confidence=uniform(-1, 1), q=uniform(0, 1))

    def misfires(run):
        frame = table(
            run,
            [(c,) for c in range(classes)],
            also=("class",),
            rate=uniform(0, 1),
            lift=uniform(0, 9),
            q=uniform(0, 0.05),
        )
        return frame.sort_values("lift", ascending=False, ignore_index=True).head(30)

    def kernels(run):
        def kind(rng, frame):
            return rng.choice(["edge", "blob", "colour"], len(frame))

        return table(run, norm=uniform(0, 3), orientation=uniform(0, 180), kind=kind)

    def redundancy(run):
        return table(run, twin=uniform(0, 1), weight_similarity=uniform(0, 1))

    def embed(run, layer, method="pca", seed=0):
        points = np.random.default_rng(0).normal(size=(run.samples.count, 2))
        parameters = {"method": method, "layer": layer, "warning": ""}
        return points + 3 * (run.samples.labels[:, None] % 3), 0.93, parameters

    return SimpleNamespace(
        responses=responses,
        classes=by_class,
        outcomes=outcomes,
        misfires=misfires,
        kernels=kernels,
        redundancy=redundancy,
        embed=embed,
    )

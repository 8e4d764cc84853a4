"""Names, meanings and formats of the columns that filters are sorted and filtered by."""

from __future__ import annotations

from typing import Any

import numpy as np

# name: (label, meaning, format)
KNOWN = {
    "standout": (
        "stands out",
        "maximum, in standard deviations above the mean: selective filters come first",
        "number",
    ),
    "max": ("maximum", "greatest value over all samples and positions", "number"),
    "min": ("minimum", "least value", "number"),
    "mean": ("mean", "mean value", "number"),
    "std": ("std", "standard deviation", "number"),
    "positive": ("above 0", "share of values above 0", "percent"),
    "nonfinite": ("not finite", "values that are NaN or infinite; left out of the rest", "integer"),
    "dead": ("dead", "never above 0", "flag"),
    "q01": ("1 %", "1 % quantile", "number"),
    "q05": ("5 %", "5 % quantile", "number"),
    "q25": ("25 %", "25 % quantile", "number"),
    "q50": ("median", "median", "number"),
    "q75": ("75 %", "75 % quantile", "number"),
    "q95": ("95 %", "95 % quantile", "number"),
    "q99": ("99 %", "99 % quantile", "number"),
    "best_class": ("best class", "class that the filter tells best from the others", "text"),
    "class_auroc": ("class AUROC", "how well it tells that class from the others", "number"),
    "class_selectivity": ("class selectivity", "greatest selectivity over the classes", "number"),
    "norm": ("weight norm", "Euclidean norm of the weights", "number"),
    "effective_size": ("effective size", "width of the kernel, in taps", "number"),
    "orientation": (
        "orientation",
        "in which the kernel varies most, in degrees",
        "number",
    ),
    "frequency": ("frequency", "greatest in its spectrum, in cycles an input position", "number"),
    "separability": (
        "separability",
        "share that a product of lines explains",
        "number",
    ),
    "symmetry": ("symmetry", "1: even, -1: odd", "number"),
    "kind": ("kind", "what the kernel looks like", "text"),
    "twin": ("twin", "the filter of the layer most like it", "filter"),
    "weight_similarity": ("twin, by weights", "cosine of the weights of the two", "number"),
    "response_correlation": ("twin, by responses", "correlation of their responses", "number"),
    "saturated": ("saturated", "nearly all values at the end of its range", "flag"),
    "near_constant": ("near-constant", "hardly varies over the data", "flag"),
    "auroc_error": ("tells errors", "AUROC of its response for wrong outcomes", "number"),
    "error_class": ("errors of", "the class whose errors it tells best", "text"),
    "r_confidence": ("r confidence", "correlation with the confidence", "number"),
    "r_correct": ("r correct", "correlation with right outcomes", "number"),
    "precision": ("precision", "of errors, at its threshold", "number"),
    "recall": ("recall", "of errors, at its threshold", "number"),
    "threshold": ("threshold", "of its response, for precision and recall", "number"),
    "outcomes_q": ("q of outcomes", "false discovery rate", "number"),
    "match": ("match", "the filter of the other run that is most like it", "other"),
    "similarity": ("similarity", "of the match", "number"),
    "change_mean": ("change of mean", "other run minus this one", "number"),
    "change_max": ("change of maximum", "other run minus this one", "number"),
    "change_positive": ("change above 0", "other run minus this one", "percent"),
}


def describe(name: str) -> dict[str, str]:
    """Label, meaning and format of a column."""
    if name.startswith("invariance "):
        condition = name.removeprefix("invariance ")
        meaning = f"how little its response changes under {condition}"
        return {"label": f"invariance: {condition}", "help": meaning, "format": "number"}
    label, meaning, form = KNOWN.get(name, (name.replace("_", " "), "", "number"))
    return {"label": label, "help": meaning, "format": form}


def encode(columns: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Text as numbers of its distinct values: arrays, and these values by column."""
    arrays: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    for name, values in columns.items():
        if values.dtype.kind in "OU":
            found, codes = np.unique(values.astype(str), return_inverse=True)
            arrays[name], texts[name] = codes.astype(np.float32), found.tolist()
        else:
            arrays[name] = values.astype(np.float32)
    return arrays, texts

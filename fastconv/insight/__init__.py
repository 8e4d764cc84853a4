"""Tables about the filters of a run; formulas and sources are in docs/insight.md."""

from fastconv.insight.biases import biases
from fastconv.insight.classes import classes
from fastconv.insight.entanglement import entanglement
from fastconv.insight.misfires import misfires
from fastconv.insight.outcomes import confusion, outcomes
from fastconv.insight.responses import responses

__all__ = [
    "biases",
    "classes",
    "confusion",
    "entanglement",
    "misfires",
    "outcomes",
    "responses",
]

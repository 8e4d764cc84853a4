"""Tables that say what filters are, whom they depend on, and what is lost without them.

Formulas and sources are in docs/insight.md.
"""

from fastconv.insight.ablate import ablate
from fastconv.insight.biases import biases
from fastconv.insight.classes import classes
from fastconv.insight.compare import compare
from fastconv.insight.design import design
from fastconv.insight.effective_field import effective_field
from fastconv.insight.embed import Embedding, embed
from fastconv.insight.embedding_file import has_embeddings, load_embedding, save_embedding
from fastconv.insight.entanglement import entanglement
from fastconv.insight.groups import by_sample
from fastconv.insight.kernels import kernels
from fastconv.insight.misfires import misfires
from fastconv.insight.modes import DropoutPass, batch_moments
from fastconv.insight.outcomes import confusion, outcomes
from fastconv.insight.overlap import overlap
from fastconv.insight.redundancy import redundancy
from fastconv.insight.responses import responses

__all__ = [
    "DropoutPass",
    "Embedding",
    "ablate",
    "batch_moments",
    "biases",
    "by_sample",
    "classes",
    "compare",
    "confusion",
    "design",
    "effective_field",
    "embed",
    "entanglement",
    "has_embeddings",
    "kernels",
    "load_embedding",
    "misfires",
    "outcomes",
    "overlap",
    "redundancy",
    "responses",
    "save_embedding",
]

"""Tables that say what filters are, whom they depend on, and what is lost without them."""

from fastconv.insight.ablate import ablate
from fastconv.insight.compare import compare
from fastconv.insight.design import design
from fastconv.insight.effective_field import effective_field
from fastconv.insight.embed import Embedding, embed
from fastconv.insight.embedding_file import load_embedding, save_embedding
from fastconv.insight.kernels import kernels
from fastconv.insight.overlap import overlap
from fastconv.insight.redundancy import redundancy

__all__ = [
    "Embedding",
    "ablate",
    "compare",
    "design",
    "effective_field",
    "embed",
    "kernels",
    "load_embedding",
    "overlap",
    "redundancy",
    "save_embedding",
]

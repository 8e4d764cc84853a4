"""See what the convolutions of a trained network have learned."""

import importlib
from typing import Any

from fastconv.dispatch import backends
from fastconv.errors import InputError
from fastconv.export.report import report
from fastconv.ops.channel_normalize import channel_normalize
from fastconv.ops.channel_reduce import channel_reduce
from fastconv.ops.conv_reduce import conv_reduce
from fastconv.ops.gather_patches import gather_patches
from fastconv.ops.topk_merge import TopK, topk_merge
from fastconv.reduction import Reduction, histogram_edges
from fastconv.run.extract import extract
from fastconv.run.merge import merge
from fastconv.store.reader import Layer, Run
from fastconv.store.reader import open_run as open
from fastconv.verification.verify import Report, verify
from fastconv.version import __version__

__all__ = [
    "extract",
    "open",
    "merge",
    "verify",
    "report",
    "Run",
    "Layer",
    "Report",
    "Reduction",
    "TopK",
    "backends",
    "channel_normalize",
    "channel_reduce",
    "conv_reduce",
    "gather_patches",
    "histogram_edges",
    "topk_merge",
    "__version__",
]

_ANALYSES = ("ablate", "compare", "overlap")  # of `fastconv.insight`, which needs its extra


def __getattr__(name: str) -> Any:
    """The analyses, imported when they are first asked for."""
    if name != "insight" and name not in _ANALYSES:
        raise AttributeError(f"module 'fastconv' has no attribute {name!r}")
    try:
        module = importlib.import_module("fastconv.insight")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise InputError(f"{package} is missing: pip install 'fastconv[insight]'") from error
    return module if name == "insight" else getattr(module, name)

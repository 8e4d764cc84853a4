"""See what the convolutions of a trained network have learned.

Names are imported when they are first used, so that reading a file needs numpy and h5py alone.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastconv.errors import InputError
from fastconv.version import __version__

if TYPE_CHECKING:
    from fastconv import export, insight, perturb
    from fastconv.dispatch import backends
    from fastconv.export.report import report
    from fastconv.insight.ablate import ablate
    from fastconv.insight.compare import compare
    from fastconv.insight.overlap import overlap
    from fastconv.ops.channel_normalize import channel_normalize
    from fastconv.ops.channel_reduce import channel_reduce
    from fastconv.ops.conv_reduce import conv_reduce
    from fastconv.ops.gather_patches import gather_patches
    from fastconv.ops.topk_merge import TopK, topk_merge
    from fastconv.reduction import Reduction, histogram_edges
    from fastconv.run.extract import extract
    from fastconv.run.merge import merge
    from fastconv.store.read_layer import Layer
    from fastconv.store.reader import Run
    from fastconv.store.reader import open_run as open
    from fastconv.verification.verify import Report, verify

_HOMES = {  # public name: module, and its name there where it differs
    "extract": ("fastconv.run.extract",),
    "open": ("fastconv.store.reader", "open_run"),
    "merge": ("fastconv.run.merge",),
    "verify": ("fastconv.verification.verify",),
    "report": ("fastconv.export.report",),
    "compare": ("fastconv.insight",),
    "ablate": ("fastconv.insight",),
    "overlap": ("fastconv.insight",),
    "Run": ("fastconv.store.reader",),
    "Layer": ("fastconv.store.read_layer",),
    "Report": ("fastconv.verification.verify",),
    "Reduction": ("fastconv.reduction",),
    "TopK": ("fastconv.ops.topk_merge",),
    "backends": ("fastconv.dispatch",),
    "channel_normalize": ("fastconv.ops.channel_normalize",),
    "channel_reduce": ("fastconv.ops.channel_reduce",),
    "conv_reduce": ("fastconv.ops.conv_reduce",),
    "gather_patches": ("fastconv.ops.gather_patches",),
    "histogram_edges": ("fastconv.reduction",),
    "topk_merge": ("fastconv.ops.topk_merge",),
}
_SUBPACKAGES = ("perturb", "insight", "export")

__all__ = [
    "extract",
    "open",
    "merge",
    "verify",
    "report",
    "compare",
    "ablate",
    "overlap",
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
    "perturb",
    "insight",
    "export",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, *alias = _HOMES[name]
        value = getattr(_imported(module), *alias or (name,))
    elif name in _SUBPACKAGES:
        value = _imported(f"fastconv.{name}")
    else:
        raise AttributeError(f"module 'fastconv' has no attribute {name!r}")
    globals()[name] = value
    return value


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if module != "fastconv.insight" or package == "fastconv":
            raise
        raise InputError(f"{package} is missing: pip install 'fastconv[insight]'") from error


class _Package(ModuleType):
    """Keeps the public function `backends` apart from the folder of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "backends" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

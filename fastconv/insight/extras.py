"""Libraries that only some analyses need."""

from __future__ import annotations

import importlib
from typing import Any

from fastconv.errors import InputError


def library(name: str, extra: str) -> Any:
    """An optional library, imported when it is first needed.

    Raises:
        InputError: it is not installed; the message names the extra that has it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputError(f"{package} is missing: pip install 'fastconv[{extra}]'") from error

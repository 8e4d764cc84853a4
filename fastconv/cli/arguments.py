"""Arguments that several sub-commands share, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

_MODEL = "torchvision:NAME, timm:NAME, package.module:factory or file.py:factory"
_DATA = (
    "a folder of images (flat, or one folder a class), array.npy, arrays.npz[:NAME], "
    "file.h5:DATASET, file.py:factory or package.module:factory"
)


def add_model_and_data(parser: argparse.ArgumentParser) -> None:
    """MODEL and DATA, and how they are read."""
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("data", metavar="DATA", help=_DATA)
    parser.add_argument("--weights", metavar="FILE", help="safetensors or a checkpoint")
    parser.add_argument("--device", help="where the model runs: cpu, cuda, cuda:1 (default: cpu)")
    images = parser.add_argument_group("folders of images")
    images.add_argument("--size", type=int, help="resize the shorter side, crop the centre square")
    images.add_argument("--mean", type=numbers, metavar="R,G,B", help="subtracted, after [0, 1]")
    images.add_argument("--std", type=numbers, metavar="R,G,B", help="divides, after --mean")


def model_and_data(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The model and the data set that the arguments name."""
    from fastconv.cli.models import open_model
    from fastconv.cli.sources import open_source

    data = open_source(arguments.data, arguments.size, arguments.mean, arguments.std)
    return open_model(arguments.model, arguments.weights), data


def _reads(what: str) -> Callable[[Callable[[str], Any]], Callable[[str], Any]]:
    """Says what was expected, in one line, where a text cannot be read."""

    def decorate(read: Callable[[str], Any]) -> Callable[[str], Any]:
        def checked(text: str) -> Any:
            try:
                return read(text)
            except (ValueError, TypeError):
                raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}") from None

        return checked

    return decorate


@_reads("numbers such as 0.5 or 0.485,0.456,0.406")
def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """`conv1,layer1.*`."""
    return [part.strip() for part in text.split(",") if part.strip()]


@_reads("all, indices such as 0,5,9, or a slice such as 0:64")
def indices(text: str) -> Any:
    if text == "all":
        return text
    if ":" in text:
        return slice(*(int(part) if part else None for part in text.split(":")))
    return [int(part) for part in text.split(",")]


@_reads("I/N, counted from 0: 0/4 ... 3/4")
def shard(text: str) -> tuple[int, int]:
    index, count = text.split("/")
    return int(index), int(count)

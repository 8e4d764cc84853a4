"""Arguments that several sub-commands share, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

_MODEL = "torchvision:NAME, timm:NAME, package.module:factory or file.py:factory"
_DATA = (
    "a folder of images, scans, sounds or videos (flat, or one folder a class), or of tar shards, "
    "array.npy, arrays.npz[:NAME], file.h5:DATASET, file.py:factory or package.module:factory"
)


def add_model_and_data(parser: argparse.ArgumentParser, optional: str | None = None) -> None:
    """MODEL and DATA, and all that decides what a sample is; `optional`: what is taken instead."""
    nargs = None if optional is None else "?"
    instead = "" if optional is None else f" (default: {optional})"
    parser.add_argument("model", metavar="MODEL", nargs=nargs, help=_MODEL + instead)
    parser.add_argument("data", metavar="DATA", nargs=nargs, help=_DATA)
    parser.add_argument("--weights", metavar="FILE", help="safetensors or a checkpoint")
    parser.add_argument("--device", help="where the model runs: cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--on-error", choices=("raise", "skip"), help="what broken samples do")
    files = parser.add_argument_group("folders of files (docs/data.md)")
    add = files.add_argument
    add("--size", type=sizes, metavar="N[,N...]", help="of every sample: N, or H,W of pictures")
    add("--fit", metavar="HOW", help="cover (with --size), crop, pad, resize: to one size")
    add("--range", type=numbers, metavar="LOW,HIGH", help="values that become 0 and 1")
    add("--channels", type=int, metavar="N", help="of every sample (pictures and videos: 3)")
    add("--mean", type=numbers, metavar="R,G,B", help="subtracted, after [0, 1]")
    add("--std", type=numbers, metavar="R,G,B", help="divides, after --mean")
    add("--as-stored", action="store_true", help="pixels not turned by their EXIF orientation")
    add("--frames", type=int, metavar="N", help="of every video, evenly spaced (default: all)")


def model_and_data(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The model and the data set that the arguments name."""
    from fastconv.cli.models import open_model
    from fastconv.cli.sources import open_source

    data = open_source(
        arguments.data,
        size=arguments.size,
        fit=arguments.fit,
        value_range=arguments.range,
        channels=arguments.channels,
        mean=arguments.mean,
        std=arguments.std,
        as_stored=arguments.as_stored,
        frames=arguments.frames,
    )
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


@_reads("whole numbers such as 224 or 16,112,112")
def sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


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

"""`fastconv ablate`: what a classifier loses without some of its filters."""

from __future__ import annotations

import argparse

from fastconv.cli.arguments import add_model_and_data, model_and_data
from fastconv.cli.frames import add_csv, show
from fastconv.errors import InputError


def add(parser: argparse.ArgumentParser) -> None:
    add_model_and_data(parser)
    parser.add_argument(
        "--filters",
        type=filters,
        action="append",
        required=True,
        metavar="LAYER:0,3,8-11",
        help="the filters of a layer; once for each layer",
    )
    parser.add_argument("--value", choices=("zero", "mean"), default="zero", help="instead (zero)")
    parser.add_argument("--together", action="store_true", help="all at once, not one at a time")
    parser.add_argument("--labels", metavar="FILE.npy", help="(default: those of the data)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="(64)")
    parser.add_argument(
        "--num-workers", type=int, default=0, metavar="N", help="that read data (0)"
    )
    add_csv(parser)
    parser.set_defaults(run=run)


def filters(text: str) -> tuple[str, list[int]]:
    """`layer1.0.conv1:0,3,8-11`."""
    layer, _, which = text.rpartition(":")
    try:
        ends = [[int(end) for end in part.split("-")] for part in which.split(",")]
        found = [i for end in ends for i in range(end[0], end[-1] + 1)]
    except ValueError:
        found = []
    if not layer or not found:
        raise argparse.ArgumentTypeError(f"expected LAYER:0,3,8-11, got {text!r}")
    return layer, found


def run(arguments: argparse.Namespace) -> int:
    import numpy as np

    import fastconv

    model, data = model_and_data(arguments)
    labels = None
    if arguments.labels is not None:
        try:
            labels = np.load(arguments.labels, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{arguments.labels} is not an .npy of labels: {error}") from error
    chosen: dict[str, list[int]] = {}
    for layer, which in arguments.filters:
        chosen.setdefault(layer, []).extend(which)
    found = fastconv.ablate(
        model,
        data,
        chosen,
        arguments.value,
        labels,
        together=arguments.together,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        device=arguments.device,
    )
    short = [n for n in found if n.endswith(("_change", "_low", "_high"))]
    show(found.drop(columns=short) if arguments.csv is None else found, arguments.csv)
    return 0

"""`fastconv verify`: recompute what a file says, from the model and the data."""

from __future__ import annotations

import argparse

from fastconv.cli.arguments import add_model_and_data, model_and_data


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="RUN.h5")
    add_model_and_data(parser)
    parser.add_argument("--hits", type=int, metavar="N", help="per layer (default: all)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import fastconv
    from fastconv.data import open_data

    with fastconv.open(arguments.file):
        pass  # no model is built for a file that cannot be read
    model, data = model_and_data(arguments)
    if arguments.on_error is not None:  # else as the file says
        data = open_data(data, skip=arguments.on_error == "skip")
    report = fastconv.verify(
        arguments.file, model, data, hits=arguments.hits, device=arguments.device
    )
    print(report)
    return 0 if report.ok else 1

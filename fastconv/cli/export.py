"""`fastconv export`: figures, a TensorBoard log, or the network as a graph, from a file."""

from __future__ import annotations

import argparse

from fastconv.cli.arguments import names

_KINDS = {
    "figures": "a folder of figures: needs the extra figures",
    "tensorboard": "a log for TensorBoard: needs the extra tensorboard",
    "graph": "the network, layers coloured by a statistic: OUT.svg or OUT.dot",
}
_COLOURS = "positive (default), dead, mean, std, min, max or nonfinite, of each layer"


def add(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(metavar="KIND", required=True, parser_class=type(parser))
    for kind, words in _KINDS.items():
        one = kinds.add_parser(kind, help=words, description=f"{words[0].upper()}{words[1:]}.")
        one.add_argument("file", metavar="RUN.h5")
        one.add_argument("out", metavar="OUT", help="a file" if kind == "graph" else "a folder")
        one.set_defaults(run=run, kind=kind)
        if kind == "figures":
            one.add_argument("--layers", type=names, metavar="A,B.*", help="names and globs")
            one.add_argument("--format", choices=("png", "svg", "pdf"), default="png")
        if kind == "graph":
            one.add_argument("--colour", default="positive", metavar="STATISTIC", help=_COLOURS)


def run(arguments: argparse.Namespace) -> int:
    import fastconv
    from fastconv import export

    with fastconv.open(arguments.file) as opened:
        if arguments.kind == "figures":
            made = export.figures(opened, arguments.out, arguments.layers, arguments.format)
            print(f"{arguments.out}: {len(made)} figures")
        elif arguments.kind == "tensorboard":
            folder = export.tensorboard(opened, arguments.out)
            print(f"{folder}: look at it with tensorboard --logdir {folder}")
        else:
            print(export.graph(opened, arguments.out, colour=arguments.colour))
    return 0

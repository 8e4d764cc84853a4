"""`fastconv compare`: the filters of two runs matched, and what changed."""

from __future__ import annotations

import argparse
import warnings

from fastconv.cli.frames import add_csv, show


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A.h5")
    parser.add_argument("second", metavar="B.h5")
    add_csv(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import fastconv

    with (
        fastconv.open(arguments.first) as a,
        fastconv.open(arguments.second) as b,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)  # what is left out is shown below
        found = fastconv.compare(a, b)
    changes = [name for name in found if name.endswith("_change")]
    show(found.drop(columns=changes[1:]) if arguments.csv is None else found, arguments.csv)
    for name, value in found.attrs["cka"].items():
        print(f"{name}: linear CKA {value:.4f}")
    for name, reason in found.attrs["left_out"].items():
        print(f"{name} is left out: {reason}; it needs samples=True of the same data")
    for which, names in (("A", found.attrs["only_in_a"]), ("B", found.attrs["only_in_b"])):
        if names:
            print(f"only in {which}: {', '.join(names)}")
    return 0

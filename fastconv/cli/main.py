"""`fastconv`: reads the command line, runs a sub-command, turns errors into exit codes.

A sub-command NAME is the module `fastconv.cli.NAME` with `add(parser)`, which declares arguments
and sets `run`. It is imported only when it is chosen.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from fastconv.errors import FastconvError
from fastconv.version import __version__

COMMANDS = {
    "demo": "train a small network and look into it",
    "extract": "measure a model over a data set",
    "inspect": "show what is in a file",
    "report": "make a page that shows every filter of a run",
    "verify": "check a file against its model and its data",
    "merge": "join the files of all shards into one",
    "insight": "tables about the filters of a run",
    "compare": "match the filters of two runs",
    "ablate": "measure a classifier without some filters",
    "export": "make pictures of a file",
    "bench": "measure what an extraction costs beside the plain forward",
    "doctor": "say what runs on this machine, and what does not",
}
DONE, CHECK_FAILED, BAD_INPUT, DEFECT, INTERRUPTED = 0, 1, 2, 3, 130

_EPILOG = (
    "exit codes: 0 done, 1 a check failed, 2 bad input (one line says what and what to do), "
    "3 a defect, or a model that raises, 130 interrupted"
)


class Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(BAD_INPUT)


def parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The command line, with the arguments of the chosen sub-command alone."""
    top = Parser(
        prog="fastconv",
        description="See what the convolutions of a trained network have learned.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
        if name == chosen:
            importlib.import_module(f"fastconv.cli.{name}").add(command)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    arguments = parser(chosen).parse_args(argv)
    try:
        return arguments.run(arguments)
    except FastconvError as error:
        print(f"fastconv: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("fastconv: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception:  # noqa: BLE001 - 1 would say that a check failed
        traceback.print_exc()
        return DEFECT

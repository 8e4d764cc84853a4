"""`fastconv`: reads the command line, runs a sub-command, turns errors into exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from fastconv.cli import (
    ablate,
    compare,
    demo,
    doctor,
    export,
    extract,
    insight,
    inspect,
    merge,
    report,
    verify,
)
from fastconv.errors import FastconvError
from fastconv.version import __version__

COMMANDS = (demo, extract, inspect, report, verify, merge, insight, compare, ablate, export, doctor)
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


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="fastconv",
        description="See what the convolutions of a trained network have learned.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit code."""
    arguments = parser().parse_args(argv)
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


if __name__ == "__main__":
    raise SystemExit(main())

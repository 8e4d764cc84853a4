"""`fastconv bench`: what an extraction costs beside the plain forward, on this machine."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from fastconv.cli.arguments import add_model_and_data, model_and_data
from fastconv.errors import InputError


def add(parser: argparse.ArgumentParser) -> None:
    add_model_and_data(parser, optional="the demo's network and its digits")
    add = parser.add_argument
    add("--samples", type=int, default=256, metavar="N", help="the first of the data (256)")
    add("--batch-size", type=int, default=32, metavar="N", help="(32)")
    add("--rounds", type=int, default=3, metavar="N", help="of which medians are shown (3)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import torch

    from fastconv.demo.bench import costs

    if arguments.model is not None and arguments.data is None:
        raise InputError("give MODEL and DATA, or neither")
    model, data = _demo() if arguments.model is None else model_and_data(arguments)
    found = costs(
        model,
        data,
        samples=arguments.samples,
        batch_size=arguments.batch_size,
        rounds=arguments.rounds,
        device=arguments.device,
    )
    print(
        f"{found.samples:,} samples in memory, batches of {arguments.batch_size}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"medians of {arguments.rounds} rounds"
    )
    rows = {f"forward, {name}": seconds for name, seconds in found.forward.items()}
    rows["extract, as by default"] = found.extraction
    for name, seconds in rows.items():
        print(f"{name:24}{seconds:9.3f} s{found.samples / seconds:11,.1f} samples/s")
    print(f"{'  of which for one':24}{found.one:9.3f} s: start, file, and a forward")
    low, high = min(found.ratios), max(found.ratios)
    beyond = found.each * found.samples / found.fastest
    print(
        f"extract / fastest forward = {statistics.median(found.ratios):.2f} ({low:.2f} to "
        f"{high:.2f}); of every sample after the first {beyond:.2f}"
    )
    if found.length is not None and found.length > found.samples:
        minutes = (found.one + found.each * found.length) / 60
        print(f"all {found.length:,} samples: about {minutes:,.1f} minutes, without reading them")
    return 0


def _demo() -> tuple[Any, Any]:
    try:
        from fastconv.demo import digits
    except ImportError as error:
        raise InputError(
            f"{error.name} is missing: pip install 'fastconv[demo]', or give MODEL and DATA"
        ) from error
    return digits.build(), digits.load()[0]

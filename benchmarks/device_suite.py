"""What a GPU run must show: two commands, each under four minutes with a GPU and 16 cores.

    python benchmarks/device_suite.py right   # is it right: Triton's kernels and CUDA's, sanitizer
    python benchmarks/device_suite.py fast    # how fast: beside cuDNN and eager torch; goals

Run from the repository root; nothing needs to be installed: the native libraries are built first,
for this device alone. Failures are printed first, then a summary of at most 40 lines; figures go to
benchmarks/results/<device>/device_<stage>.json beside predictions, check by check, so that a stage
that is killed leaves what it has found ("finished" is missing then).

For those who work on the kernels: `why` (ncu: bytes, issue slots, tensor pipe), `graph` (up to
which batch size a CUDA graph pays), `tune` (tile shapes for the worst ratios); ten minutes each.
--smoke runs a shrunken stage in Triton's interpreter, without a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

STAGES = {"right": 230, "fast": 230, "why": 540, "graph": 540, "tune": 540}  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--smoke", action="store_true", help="tiny, in the interpreter, no GPU")
    parser.add_argument("--out", type=Path, help="folder of the JSON (default: results/<device>)")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # one probe or layer, in its own process
    parser.add_argument("--seconds", type=float, help="what a stage may take")
    arguments = parser.parse_args()
    root = Path(__file__).parents[1]
    sys.path[:0] = [str(root)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    if arguments.smoke:
        os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported
    common = importlib.import_module("device_stages.common")
    reason = common.cannot_run(smoke=arguments.smoke)
    if reason:
        print(f"device_suite: {reason}", file=sys.stderr)
        return 2
    stage = importlib.import_module(f"device_stages.{arguments.stage}")
    out = None if arguments.part else arguments.out
    seconds = arguments.seconds or STAGES[arguments.stage] * (4 if arguments.smoke else 1)
    suite = common.Suite(arguments.stage, smoke=arguments.smoke, out=out, seconds=seconds)
    if arguments.part:
        suite.kept = False  # the stage writes
        stage.part(suite, arguments.part)
        return 0
    stage.run(suite)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())

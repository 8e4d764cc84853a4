"""What a GPU run must show, one stage per command, each under ten minutes:

    python benchmarks/device_suite.py right   # is it right: probes, correctness, same bits
    python benchmarks/device_suite.py fast    # how fast: layers beside cuDNN, eager and compiled
    python benchmarks/device_suite.py why     # ncu: bytes, issue slots, tensor pipe
    python benchmarks/device_suite.py graph   # up to which batch size a CUDA graph pays
    python benchmarks/device_suite.py tune    # tile shapes for the worst ratios

Run from the repository root; nothing needs to be installed or built. Failures are printed first;
figures go to benchmarks/results/<device>/device_<stage>.json beside predictions, check by check, so
that a stage that is killed leaves what it has found ("finished" is missing then).
--smoke runs a shrunken stage in Triton's interpreter, without a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

STAGES = ("right", "fast", "why", "graph", "tune")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--smoke", action="store_true", help="tiny, in the interpreter, no GPU")
    parser.add_argument("--out", type=Path, help="folder of the JSON (default: results/<device>)")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # one probe or layer, in its own process
    parser.add_argument("--seconds", type=float, default=540, help="what a stage may take")
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
    suite = common.Suite(arguments.stage, smoke=arguments.smoke, out=out, seconds=arguments.seconds)
    if arguments.part:
        suite.kept = False  # the stage writes
        stage.part(suite, arguments.part)
        return 0
    stage.run(suite)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())

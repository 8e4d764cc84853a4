"""Two processes at work on one output."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "helpers"
REFUSED = "another process is writing run.h5; wait for it, choose another output, or give each"


@pytest.mark.slow
def test_two_processes_race_for_one_output(tmp_path):
    """One makes the file; the other refuses, or comes late and opens it; nothing is corrupted."""
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, HERE / "racing_runs.py", tmp_path, "10"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) == 10
    for pair in outcomes:
        assert "done" in pair, pair
        assert all(said == "done" or said.startswith(REFUSED) for said in pair)
    assert any(said != "done" for pair in outcomes for said in pair)

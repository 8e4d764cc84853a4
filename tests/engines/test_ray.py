"""The same run in tasks of Ray, one of whose workers is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import backend_cases, s3, shared_run
from helpers.networks import datasets, images, network
from helpers.ray_run import DiesOnce

import fastconv
from fastconv.engines.ray import ray_tasks
from fastconv.errors import InputError

HELPERS = Path(shared_run.__file__).parent


def test_names_of_engines():
    assert [ray_tasks(e) for e in (None, "local", "ray", "ray:3")] == [None, None, 0, 3]
    for wrong in ("spark", "ray:0", "ray:x"):
        with pytest.raises(InputError, match="engine must be"):
            ray_tasks(wrong)


def test_without_ray_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    given = {"engine": "ray", "progress": False}
    with pytest.raises(InputError, match=r"pip install 'fastconv\[ray\]'"):
        fastconv.extract(network(), images(8), tmp_path / "run.h5", **given)


def environment():
    paths = [str(HELPERS.parent), os.environ.get("PYTHONPATH", "")]
    more = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **more, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.mark.slow
def test_four_tasks_have_the_bytes_of_one_process(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'fastconv[ray]'")
    for name, engine in (("one", "local"), ("four", "ray:4")):
        command = [sys.executable, HELPERS / "ray_run.py", tmp_path / f"{name}.h5", engine]
        done = subprocess.run(
            [*command, tmp_path / "died"], env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "died").exists()  # a worker was killed, and its task started again
    one, four = (datasets(tmp_path / f"{name}.h5") for name in ("one", "four"))
    assert one.keys() == four.keys()
    assert [name for name in one if one[name] != four[name]] == []


@pytest.mark.slow
def test_tasks_put_the_file_to_s3(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'fastconv[ray]'")
    url, marker, scratch = "s3://ray/run.h5", tmp_path / "died", tmp_path / "scratch"
    marker.touch()  # none is killed
    with s3.served("ray") as (_, more):
        given = {**environment(), **more, "FASTCONV_SCRATCH": str(scratch)}
        command = [sys.executable, HELPERS / "ray_run.py", url, "ray:2", marker]
        done = subprocess.run(command, env=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert not any(scratch.iterdir())
        with (
            backend_cases.threads(1),
            fastconv.open(url) as there,
            fastconv.extract(
                network(), DiesOnce(str(marker)), tmp_path / "run.h5",
                engine="local", progress=False, **shared_run.OPTIONS,
            ) as here,
        ):  # fmt: skip
            assert there.digest() == here.digest()


@pytest.mark.slow
def test_tasks_share_a_stream_that_does_not_tell_its_length(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'fastconv[ray]'")
    for name, engine in (("one", []), ("three", ["ray"])):
        command = [sys.executable, HELPERS / "stream_run.py", tmp_path / f"{name}.h5", *engine]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    one, three = (datasets(tmp_path / f"{name}.h5") for name in ("one", "three"))
    assert one.keys() == three.keys()
    assert [name for name in one if one[name] != three[name]] == []

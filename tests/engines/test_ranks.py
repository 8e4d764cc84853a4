"""One run by several processes has the bytes of one process, also when some of them die."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import s3, shared_run
from helpers.networks import datasets, images, network

import fastconv
from fastconv.engines.ranks import Rank, current_rank
from fastconv.errors import FingerprintError, InputError, OutputError
from fastconv.run.claims import MOST, Claims
from fastconv.store import lock
from fastconv.store.parts import PartsFolder

HELPERS = Path(shared_run.__file__).parent
SCRIPT = HELPERS / "shared_run.py"


def environment(**more):
    paths = [str(HELPERS.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The datasets of the run of one process."""
    out = tmp_path_factory.mktemp("whole") / "run.h5"
    subprocess.run([sys.executable, SCRIPT, out], env=environment(), check=True)
    return datasets(out)


def same(out, whole):
    found = datasets(out)
    assert found.keys() == whole.keys()
    assert [name for name in whole if found[name] != whole[name]] == []
    assert not Path(f"{out}.parts").exists()


def start(out, number, total, *arguments, more=None):
    ranks = {"RANK": str(number), "WORLD_SIZE": str(total), "TORCHELASTIC_RUN_ID": "test"}
    command = [sys.executable, SCRIPT, out, *map(str, arguments)]
    env = environment(**ranks, **(more or {}))
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def test_one_process_that_was_killed_goes_on_where_it_was(tmp_path, whole):
    """Outcomes and conditions as well."""
    command = [sys.executable, SCRIPT, tmp_path / "run.h5", "9", tmp_path / "died"]
    killed = subprocess.run(command, env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    parts = list(tmp_path.glob("run.h5.parts/u*.h5"))
    assert len(parts) == 9 and not (tmp_path / "run.h5").exists()
    subprocess.run(command, env=environment(), check=True)
    same(tmp_path / "run.h5", whole)


@pytest.mark.slow
def test_torchrun_restarts_a_rank_that_was_killed(tmp_path, whole):
    torchrun = shutil.which("torchrun", path=str(Path(sys.executable).parent))
    if torchrun is None:
        pytest.skip("torchrun is not beside this Python")
    command = [torchrun, "--standalone", "--nproc-per-node", "2", "--max-restarts", "1", SCRIPT]
    command += [tmp_path / "run.h5", "5", tmp_path / "died"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "died").exists()
    same(tmp_path / "run.h5", whole)


@pytest.mark.slow
def test_the_others_do_the_work_of_one_that_was_killed(tmp_path, whole):
    out = tmp_path / "run.h5"
    ranks = [start(out, i, 3, 4, tmp_path / "died") for i in range(3)]
    codes = [(rank.wait(timeout=120), rank.stderr.read()) for rank in ranks]
    assert sorted(code for code, _ in codes) == [-signal.SIGKILL, 0, 0], codes
    same(out, whole)


@pytest.mark.slow
def test_ranks_put_the_file_to_s3_once(tmp_path, whole):
    """One of them is killed, the others end one after the other; a late one finds the file."""
    url = "s3://ranks/run.h5"
    with s3.served("ranks") as (system, more):
        more["FASTCONV_SCRATCH"] = str(tmp_path / "scratch")
        ranks = [start(url, i, 3, 4, tmp_path / "died", more=more) for i in range(3)]
        codes = [(rank.wait(timeout=120), rank.stderr.read()) for rank in ranks]
        assert sorted(code for code, _ in codes) == [-signal.SIGKILL, 0, 0], codes
        assert not any((tmp_path / "scratch").iterdir())
        made = system.info("ranks/run.h5")["LastModified"]
        late = start(url, 2, 3, more=more)
        assert late.wait(timeout=120) == 0, late.stderr.read()
        assert not any((tmp_path / "scratch").iterdir())
        system.invalidate_cache()
        assert system.info("ranks/run.h5")["LastModified"] == made
        system.get("ranks/run.h5", str(tmp_path / "run.h5"))
    same(tmp_path / "run.h5", whole)


def test_ranks_of_several_machines_need_a_folder_that_all_see(tmp_path, monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "test"), ("WORLD_SIZE", "4"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FASTCONV_SCRATCH", raising=False)
    with pytest.raises(InputError, match="set FASTCONV_SCRATCH to a folder that all of them see"):
        fastconv.extract(network(), images(8), "memory://runs/run.h5", progress=False)


def test_a_rank_with_another_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    out, options = tmp_path / "run.h5", {"batch_size": 4, "progress": False}
    with PartsFolder(out, shared=True) as folder:
        folder.write_manifest({"model": "another"})
        with pytest.raises(FingerprintError, match="model was"):
            fastconv.extract(network(), images(8), out, **options)
    assert folder.path.exists()  # the other rank is still at work there
    shutil.rmtree(folder.path)
    with pytest.raises(InputError, match="are for one process"):
        fastconv.extract(network(), images(8), out, overwrite=True, **options)
    run = fastconv.extract(network(), images(8), out, **options)  # alone, and done
    assert fastconv.extract(network(), images(8), out, **options).path == run.path


def test_several_processes_and_one_alone_do_not_mix(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    out = tmp_path / "run.h5"
    with (
        PartsFolder(out, shared=True),
        PartsFolder(out, shared=True),
        pytest.raises(OutputError, match="another process is writing"),
        PartsFolder(out),
    ):
        pass
    with (
        PartsFolder(out),
        pytest.raises(OutputError, match="alone"),
        PartsFolder(out, shared=True),
    ):
        pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(lock, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with (
        pytest.raises(OutputError, match=r"need locks there.*--shard"),
        PartsFolder(tmp_path / "run.h5", shared=True),
    ):
        pass


def test_an_initialised_process_group_tells_the_rank(monkeypatch):
    assert current_rank() is None
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    assert current_rank() == Rank(3, 4, 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    assert current_rank() is None


@pytest.mark.parametrize("total", [1, 7, MOST, 3 * MOST + 5])
def test_every_share_is_taken_once_and_mostly_in_long_rows(total, tmp_path):
    with PartsFolder(tmp_path / "run.h5", shared=True) as folder:
        ranks = [Claims(folder, total, Rank(i, 3)) for i in range(3)]
        taken = [[share] for rank in ranks if (share := rank.take()) is not None]
        for found, rank in itertools.cycle(zip(taken, ranks, strict=False)):
            share = rank.take()
            if share is None:
                break
            found.append(share)
        units = [unit for found in taken for share in found for unit in share]
        assert sorted(units) == list(range(total))
        jumps = sum(a.stop != b.start for found in taken for a, b in itertools.pairwise(found))
        assert jumps <= 20
        for claims in ranks:
            claims.release()
        assert ranks[0].take() is not None  # nothing is in a part: all is open again
        ranks[0].release()

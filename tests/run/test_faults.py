"""Disks, processes and data that fail: nothing finished is lost, nothing is corrupted."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers.networks import datasets, images, network
from torch.utils.data import Dataset, get_worker_info

import fastconv
from fastconv.errors import DataError, FingerprintError, OutputError
from fastconv.run import save_clock
from fastconv.store import write_maps

HERE = Path(__file__).parents[1] / "helpers"
KILLS = 30


@pytest.fixture(scope="session")
def faults(tmp_path_factory):
    """A library that makes system calls fail; its environment."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("system calls are made to fail by a C library on Linux")
    library = tmp_path_factory.mktemp("faults") / "libfaults.so"
    source = str(HERE / "faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def memory(tmp_path):
    """A folder in memory, where syncing costs nothing."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def forked(faults, *arguments):
    """What `forked_runs.py` found, which fails when anything was lost or differs."""
    command = [sys.executable, HERE / "forked_runs.py", *map(str, arguments)]
    done = subprocess.run(command, env=faults, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


class Broken(Dataset):
    """Images with labels, of which some cannot be read and one has another shape."""

    def __init__(self, count=40, broken=(), odd=()):
        self.x, self.broken, self.odd = images(count), broken, odd

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError("bad sector")
        return (self.x[index][:, 1:] if index in self.odd else self.x[index]), index % 5


MISSING = (0, 3, 8, 9, 10, 11, 12, 13, 14, 15, 21)  # the first one, and a whole batch
EVERYTHING = {
    "batch_size": 8,
    "order": "both",
    "samples": True,
    "maps": "all",
    "progress": False,
}
EVERYTHING["thumbnails"] = False  # they read samples again, and reads are counted here


def test_broken_samples_are_left_out_of_everything(tmp_path):
    data = Broken(broken=MISSING[:-1], odd=MISSING[-1:])
    with pytest.raises(DataError, match=r"sample 0 .*bad sector"):
        fastconv.extract(network(), data, tmp_path / "run.h5", **EVERYTHING)
    options = {**EVERYTHING, "on_error": "skip"}
    with fastconv.extract(network(), data, tmp_path / "run.h5", **options) as run:
        assert list(run.samples.skipped) == list(MISSING)
        kept = np.setdiff1d(np.arange(40), MISSING)
        labels = np.where(np.isin(np.arange(40), MISSING), -1, np.arange(40) % 5)
        np.testing.assert_array_equal(run.samples.labels, labels)
        with fastconv.extract(
            network(), data.x[kept], tmp_path / "rest.h5", **{**EVERYTHING, "batch_size": 29}
        ) as rest:
            for name in run.layers:
                layer, other = run[name], rest[name]
                np.testing.assert_array_equal(layer.map_samples, kept)
                assert np.isnan(layer.samples.max[list(MISSING)]).all()
                np.testing.assert_allclose(layer.samples.max[kept], other.samples.max, rtol=1e-4)
                np.testing.assert_allclose(
                    layer.map(20), other.map(int(np.searchsorted(kept, 20))), rtol=1e-2, atol=1e-4
                )
                np.testing.assert_array_equal(layer.stats["count"], other.stats["count"])
                np.testing.assert_allclose(
                    layer.stats["mean"], other.stats["mean"], rtol=1e-4, atol=1e-6
                )
                assert not np.isin(layer.topk.sample, MISSING).any()
    assert fastconv.verify(tmp_path / "run.h5", network(), data)


def test_a_file_that_lacks_samples_does_not_pass_for_a_whole_one(tmp_path):
    data = Broken(broken=[9])
    fastconv.extract(network(), data, tmp_path / "run.h5", on_error="skip", progress=False)
    with pytest.raises(FingerprintError, match="lacks 1 sample"):
        fastconv.extract(network(), data, tmp_path / "run.h5", progress=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_is_the_same_in_shards_workers_and_when_resumed(tmp_path, monkeypatch, workers):
    data, options = Broken(broken=MISSING), {**EVERYTHING, "on_error": "skip"}
    fastconv.extract(network(), data, tmp_path / "whole.h5", **options)
    parts = [tmp_path / f"{i}.h5" for i in range(2)]
    for i, part in enumerate(parts):
        fastconv.extract(network(), data, part, **options, shard=(i, 2), num_workers=workers)
    fastconv.merge(parts, tmp_path / "merged.h5")
    out, model = tmp_path / "run.h5", network()
    for name in ("MIN_SECONDS", "COST_FACTOR", "ELAPSED_SHARE"):
        monkeypatch.setattr(save_clock, name, 0)
    seen = []
    handle = model[5].register_forward_pre_hook(lambda *_: seen.append(1) or seen[4])
    with pytest.raises(IndexError):  # the first of many forwards
        fastconv.extract(model, data, out, **options)
    handle.remove()
    fastconv.extract(network(), data, out, **options)
    whole = datasets(tmp_path / "whole.h5")
    for name in ("merged.h5", "run.h5"):
        found = datasets(tmp_path / name)
        assert found.keys() == whole.keys() and [k for k in whole if whole[k] != found[k]] == []


def test_nothing_can_be_read(tmp_path):
    with pytest.raises(
        DataError, match=r"none of the 6 samples can be read: sample 0 .*bad sector"
    ):
        fastconv.extract(network(), Broken(6, range(6)), tmp_path / "run.h5", on_error="skip")
    assert list(tmp_path.iterdir()) == []


class Deadly(Dataset):
    """Images of which one ends the process that reads it, once there are workers."""

    def __init__(self, *, deadly=True):
        self.x, self.deadly = images(40), deadly

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if self.deadly and index == 33 and get_worker_info() is not None:
            os._exit(1)
        return self.x[index]


def test_a_loader_worker_that_dies(tmp_path, monkeypatch):
    """The samples are named, finished units are kept, and the same call ends as if undisturbed."""
    fastconv.extract(network(), Deadly(deadly=False), tmp_path / "whole.h5", **EVERYTHING)
    for name in ("MIN_SECONDS", "COST_FACTOR", "ELAPSED_SHARE"):
        monkeypatch.setattr(save_clock, name, 0)
    out = tmp_path / "run.h5"
    with pytest.raises(DataError, match="worker process died") as raised:
        fastconv.extract(network(), Deadly(), out, **EVERYTHING, num_workers=2)
    first, last = map(int, re.search(r"samples (\d+) \.\.\. (\d+) ", str(raised.value)).groups())
    assert 8 <= first <= 33 <= last < 40
    kept = list(tmp_path.glob("run.h5.parts/u*.h5"))
    assert len(kept) == first // 8 and not out.exists()
    read = []
    monkeypatch.setattr(Deadly, "__getitem__", lambda self, i: (read.append(i), self.x[i])[1])
    fastconv.extract(network(), Deadly(), out, **EVERYTHING)
    probed = {round(i * 39 / 15) for i in range(16)}
    assert set(read) - probed == set(range(first, 40)) - probed
    assert datasets(out) == datasets(tmp_path / "whole.h5")


def test_what_a_killed_process_left_is_swept_up(tmp_path, monkeypatch):
    """Files under temporary names are removed by the next call, and those of others are not."""
    monkeypatch.setattr(write_maps, "INSIDE", 0)
    stale = [".run.h5.7-0a1b2c3d.tmp", "run.maps/.5.h5.7-0a1b2c3d.tmp", "run.h5.parts/tmp-0a1b2c3d"]
    others = [".other.h5.7-0a1b2c3d.tmp", "run.h5.tmp", ".run.h5.swp"]
    for name in stale + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half of a file")
    fastconv.extract(network(), images(20), tmp_path / "run.h5", **EVERYTHING)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    mapped = {f"run.maps/{name}.h5" for name in ("0", "3.conv", "3.conv#1", "5", "7")}
    assert left == {"run.h5", *mapped, *others}


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_reserve_room(tmp_path, monkeypatch, code):
    fastconv.extract(network(), images(20), tmp_path / "whole.h5", **EVERYTHING)

    def refuse(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    fastconv.extract(network(), images(20), tmp_path / "run.h5", **EVERYTHING)
    assert datasets(tmp_path / "run.h5") == datasets(tmp_path / "whole.h5")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EIO, "Input/output error; check the disk and run the same call again"),
        (errno.ENOSPC, "free some space and run the same call again"),
        (errno.EROFS, "the file system is read-only; choose another folder"),
    ],
)
def test_what_was_written_and_what_to_do_is_said(tmp_path, monkeypatch, code, said):
    def refuse(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    where = re.escape(str(tmp_path / "run.h5.parts"))
    with pytest.raises(OutputError, match=f"{where}: {said}; the parts that are finished are kept"):
        fastconv.extract(network(), images(20), tmp_path / "run.h5", **EVERYTHING)
    with pytest.raises(OutputError, match=f"{re.escape(str(tmp_path / 'other.h5'))}: {said}$"):
        fastconv.extract(network(), images(20), tmp_path / "other.h5", batch_size=8, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["at a moment", "at a call"])
def test_kills_lose_nothing(memory, faults, how):
    """A sample of them: `KILLS = 100` before a release."""
    found, _ = forked(faults, "kill", memory, KILLS, how)
    assert found["killed"] == KILLS and found["finished"] and found["kept"] > KILLS // 10


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_call(memory, faults, code):
    """A clean error, no crash at the end of the process, and a resumed run with the same result."""
    found, said = forked(faults, "fail", memory, code)
    assert set(found["codes"]) <= {0, 2} and found["codes"].count(2) >= 8
    assert "Traceback" not in said and "ignored" not in said
    for line in said.splitlines():
        assert re.search(r"^(cannot write|no room left) .*run\.(h5|maps)", line), line

"""A disk that is full: a clean error, nothing left, and a process that lives on."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastconv.errors import OutputError
from fastconv.store import atomic

SCRIPT = """
import os, sys
sys.path.insert(0, {here!r})
from helpers import synthetic
from fastconv.errors import OutputError
from fastconv.store.writer import write_run

def unsupported(*args):
    raise OSError({code}, "")

if {code}:
    os.posix_fallocate = unsupported

def layers(count):
    for i in range(count):
        yield synthetic.layer_result(synthetic.layer_info(f"l{{i}}", 64, size=9), k=9)[0]

for count in (1, 2, 5, 16):
    try:
        write_run({path!r}, {{}}, layers(count), overwrite=True)
        print("written", flush=True)
    except OutputError as error:
        print(error, flush=True)
    assert set(os.listdir({folder!r})) <= {{"run.h5"}}
"""


@pytest.mark.parametrize("code", [0, errno.EOPNOTSUPP], ids=["reserves", "cannot reserve"])
@pytest.mark.parametrize("size", ["64k", "2m", "2700k", "6m", "9m"])
def test_a_full_disk_is_a_clean_error(small_disk, size, code):
    folder = small_disk(size)
    script = SCRIPT.format(
        here=str(Path(__file__).parents[1]),
        path=str(folder / "run.h5"),
        folder=str(folder),
        code=code,
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    expected = (
        f"no room left on the disk of {folder}/run.h5: free some space and run the same call again"
    )
    assert set(lines) <= {"written", expected} and lines[-1] == expected
    assert (lines[0] == "written") == (size in ("6m", "9m"))


def test_maps_without_their_file_are_removed(tmp_path, monkeypatch):
    """The disk fails when the first of the names stands already."""
    out = tmp_path / "run.h5"
    sync = atomic.sync

    def failing(path):
        if path.is_dir():
            raise OSError(errno.ENOSPC, "no room")
        sync(path)

    monkeypatch.setattr(atomic, "sync", failing)
    with pytest.raises(OutputError, match="no room left"), atomic.NewFiles(out) as files:
        with files.create(tmp_path / "run.maps" / "conv1.h5") as maps:
            maps["activation"] = 1.0
        with files.create(out) as file:
            file["value"] = 1.0
    assert not list(tmp_path.iterdir())

"""Real disks that fill while `extract` writes maps, or that cannot be written at all."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from helpers.networks import datasets

from fastconv.cli.main import main

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from fastconv.run import save_clock
from fastconv.cli.main import main
save_clock.MIN_SECONDS = save_clock.COST_FACTOR = save_clock.ELAPSED_SHARE = 0  # save every batch
sys.exit(main(sys.argv[1:]))
"""
SOURCE = """
import os, shutil
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import Dataset

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 15, 3))

class Noise(Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, i):
        if i == 41 and "LEAVE" in os.environ:  # another program takes the room; 41 is not probed
            disk = Path(os.environ["DISK"])
            free = shutil.disk_usage(disk).free
            with open(disk / "ballast", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, free - int(os.environ["LEAVE"]))
        return torch.rand(3, 50, 50, generator=torch.Generator().manual_seed(i))
"""


def extract(folder, out, **environment):
    """Through the command line; maps of 7 million values in all."""
    (folder / "noise.py").write_text(SOURCE)
    options = ["--maps", "all", "--batch-size", "8", "--samples"]
    command = ["extract", f"{folder}/noise.py:build", f"{folder}/noise.py:Noise", "-o", out]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, *options],
        env={**os.environ, "PYTHONPATH": paths, "DISK": str(Path(out).parent), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The datasets of the run on a disk with room."""
    folder = tmp_path_factory.mktemp("whole")
    done = extract(folder, str(folder / "run.h5"))
    assert done.returncode == 0, done.stderr
    return datasets(folder / "run.h5")


FILLS = {  # maps of noise are larger than is said: the parts 11.9 MB, the file another 11.9 MB
    "while parts are written": ({"LEAVE": "3000000"}, r"run\.h5\.parts"),
    "while the file is written": ({}, r"run\.h5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("when", FILLS)
def test_a_disk_of_24_mb_fills_and_more_room_completes_the_run(small_disk, tmp_path, whole, when):
    environment, named = FILLS[when]
    disk = small_disk("24m")
    out = str(disk / "run.h5")
    done = extract(tmp_path, out, **environment)
    said = done.stderr.splitlines()
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert re.search(r"^maps of 96 samples x 2 layers: .*, about 10\.5 MB on the disk", said[0])
    remedy = "free some space and run the same call again"
    expected = rf"fastconv: no room left on the disk of {disk}/{named}: {remedy}"
    assert re.match(expected, said[-1]), done.stderr
    assert "ignored" not in done.stderr
    parts = {path: path.read_bytes() for path in disk.glob("run.h5.parts/u*.h5")}
    assert len(parts) >= 4 and not list(disk.glob("run.h5.parts/tmp*")) and not Path(out).exists()
    again = extract(tmp_path, out)  # as full as before
    assert again.returncode == 2 and re.search("no room left|make room", again.stderr)
    assert all(path.read_bytes() == content for path, content in parts.items())
    small_disk("96m")
    done = extract(tmp_path, out)
    assert done.returncode == 0, done.stderr
    assert f"{8 * len(parts)} of 96 samples were done before" in done.stderr
    assert {path.name for path in disk.iterdir()} - {"ballast"} == {"run.h5"}
    found = datasets(Path(out))
    assert found.keys() == whole.keys() and [k for k in whole if whole[k] != found[k]] == []


def test_a_read_only_disk_is_one_line(small_disk, tmp_path):
    disk = small_disk("24m")
    small_disk("24m", "ro")
    done = extract(tmp_path, str(disk / "run.h5"))
    assert done.returncode == 2
    refused = f"fastconv: cannot write {disk}/run.h5.parts: the file system is read-only; "
    assert done.stderr == refused + "choose another folder\n"


@contextlib.contextmanager
def nobody():
    """A user without rights, where this one may do anything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_a_folder_without_permission_is_one_line(capsys):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "locked").mkdir(mode=0o555)
        (folder / "noise.py").write_text(SOURCE)
        command = ["extract", f"{place}/noise.py:build", f"{place}/noise.py:Noise", "--layers", "0"]
        assert main([*command, "-o", f"{place}/run.h5"]) == 0  # everything has been imported
        capsys.readouterr()
        with nobody():
            assert main([*command, "-o", f"{place}/locked/run.h5"]) == 2
        refused = f"fastconv: cannot write {place}/locked/run.h5.parts: permission denied; "
        assert capsys.readouterr().err == refused + "choose a folder that you may write to\n"

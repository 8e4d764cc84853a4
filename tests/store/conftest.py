import functools
import shutil
from pathlib import Path

import fsspec
import pytest
from helpers import browser, s3, synthetic
from helpers.counted_files import Counted

from fastconv.store import write_maps
from fastconv.store.writer import write_run

ARCHIVE = Path(__file__).parents[1] / "archive"


@pytest.fixture
def run_file(tmp_path):
    """A finished run of a 2-D, a 1-D and a 3-D layer, with maps."""
    return write_three_layers(tmp_path / "run.h5")


@pytest.fixture
def maps_file(tmp_path, monkeypatch):
    """The maps of a 2-D layer, in a file beside the run."""
    monkeypatch.setattr(write_maps, "INSIDE", 0)
    write_three_layers(tmp_path / "beside.h5")
    return tmp_path / "beside.maps" / "conv1.h5"


def write_three_layers(path):
    infos = [
        synthetic.layer_info("conv1", 5),
        synthetic.layer_info("layer1.0.conv/2#1", 7, rank=1, size=33),
        synthetic.layer_info("c3", 2, rank=3, size=4),
    ]
    results = []
    for info in infos:
        result, values = synthetic.layer_result(info, both=True)
        synthetic.with_maps(result, values)
        results.append(result)
    write_run(path, synthetic.CONFIG, iter(results), samples=synthetic.sample_table())
    return path


@pytest.fixture
def photograph(request):
    """Opens a file in h5web and returns a picture of the page."""
    for program, found in (("chromium", browser.chromium()), ("npm", shutil.which("npm"))):
        if not found:
            pytest.skip(f"{program} is not installed")
    page = browser.build_page(request.config.cache.mkdir("h5web"))
    return functools.partial(browser.photograph, page)


@pytest.fixture
def reads(monkeypatch):
    """The ranges that are read through counted:// URLs."""
    fsspec.register_implementation("counted", Counted, clobber=True)
    monkeypatch.setattr(Counted, "reads", [])
    return Counted.reads


@pytest.fixture(scope="package")
def bucket():
    """An S3 server of this machine with the archived runs in its bucket `runs`."""
    with s3.served("runs") as (system, _):
        for path in ARCHIVE.rglob("*.h5"):
            system.put(str(path), f"runs/{path.relative_to(ARCHIVE)}")
        yield system

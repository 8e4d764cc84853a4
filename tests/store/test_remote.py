"""Runs that lie elsewhere: read through fsspec, no more than is asked for."""

import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.spec import AbstractFileSystem
from helpers import s3, synthetic
from helpers.networks import images, network

import fastconv
from fastconv.cli.main import main as cli
from fastconv.errors import FileFormatError, FingerprintError, InputError, OutputError
from fastconv.run.recording import Recording
from fastconv.store import remote, write_maps
from fastconv.store.upload import destination, put
from fastconv.store.writer import write_run

ARCHIVE = Path(__file__).parents[1] / "archive"
RUNS = [ARCHIVE / name for name in ("run-1.0.h5", "run-2.0.h5")]


class Counted(AbstractFileSystem):
    """Files of this machine, whose reads are noted."""

    protocol = "counted"
    reads: ClassVar[list] = []

    def info(self, path, **options):
        return {"name": path, "size": Path(path).stat().st_size, "type": "file"}

    def cat_file(self, path, start=None, end=None, **options):
        self.reads.append((start, end))
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(end - start)


@pytest.fixture
def reads(monkeypatch):
    """The ranges that are read through counted:// URLs."""
    fsspec.register_implementation("counted", Counted, clobber=True)
    monkeypatch.setattr(Counted, "reads", [])
    return Counted.reads


@pytest.fixture(scope="module")
def bucket():
    """An S3 server of this machine with the archived runs in its bucket `runs`."""
    with s3.served("runs") as (system, _):
        for path in ARCHIVE.rglob("*.h5"):
            system.put(str(path), f"runs/{path.relative_to(ARCHIVE)}")
        yield system


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_on_s3_is_read_as_one_on_the_disk(bucket, path):
    with fastconv.open(path) as here, fastconv.open(f"s3://runs/{path.name}") as there:
        assert there.layers == here.layers and there.digest() == here.digest()
        assert there.path == f"s3://runs/{path.name}" and there.damaged() == []
        np.testing.assert_array_equal(there["conv1"].patches[()], here["conv1"].patches[()])
        np.testing.assert_array_equal(there["a/b#1"].map(2), here["a/b#1"].map(2))  # beside it
        again = pickle.loads(pickle.dumps(there))
        np.testing.assert_array_equal(again["conv1"].topk.values, here["conv1"].topk.values)
        again.close()


def test_what_is_not_on_s3_is_said(bucket):
    for url in ("s3://runs/none.h5", "s3://nowhere/run-2.0.h5"):
        with pytest.raises(FileFormatError, match=f"{url}") as raised:
            fastconv.open(url)
        assert "\n" not in str(raised.value)
    bucket.pipe("runs/text.h5", b"no HDF5 at all")
    with pytest.raises(FileFormatError, match=r"text\.h5 is no HDF5 file"):
        fastconv.open("s3://runs/text.h5")


OPTIONS = {"maps": "all", "batch_size": 4, "progress": False}


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCONV_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def test_a_run_is_put_to_s3_when_it_is_whole(bucket, tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(write_maps, "INSIDE", 0)  # its maps lie beside it
    model, data = network(), images(8)
    here = fastconv.extract(model, data, tmp_path / "here.h5", **OPTIONS)
    with fastconv.extract(model, data, "s3://runs/made.h5", **OPTIONS) as there:
        assert there.path == "s3://runs/made.h5" and there.digest() == here.digest()
    assert not any(scratch.iterdir())
    with fastconv.extract(model, data, "s3://runs/made.h5", **OPTIONS) as again:  # at once
        assert again.digest() == here.digest()
    with pytest.raises(FingerprintError, match="topk was 9, now 3"):
        fastconv.extract(model, data, "s3://runs/made.h5", topk=3, **OPTIONS)
    with fastconv.extract(
        model, data, "s3://runs/made.h5", overwrite=True, topk=3, **OPTIONS
    ) as run:
        assert run["0"].topk.values.shape[1] == 3
    here.close()


def put_all_but_the_end(put_file, local, target, **options):
    short = Path(local).with_suffix(".cut")
    short.write_bytes(Path(local).read_bytes()[:-99])
    put_file(str(short), target, **options)


def test_a_put_that_is_cut_off_loses_nothing(bucket, scratch, monkeypatch):
    model, data = network(), images(8)
    plain = bucket.put_file
    monkeypatch.setattr(bucket, "put_file", partial(put_all_but_the_end, plain))
    with pytest.raises(OutputError, match=r"cut\.h5: .*cut off; the finished file is kept"):
        fastconv.extract(model, data, "s3://runs/cut.h5", **OPTIONS)
    monkeypatch.setattr(bucket, "put_file", plain)
    with pytest.raises(OutputError, match=r"s3://nowhere/cut\.h5"):
        put(next(scratch.rglob("cut.h5")), "s3://nowhere/cut.h5", overwrite=False)
    monkeypatch.setattr(Recording, "take", None)  # nothing is measured again
    with fastconv.extract(model, data, "s3://runs/cut.h5", **OPTIONS) as run:
        assert run.damaged() == []
    assert not any(scratch.iterdir())
    with pytest.raises(InputError, match="is a folder"):
        destination("s3://runs/")


def test_shards_on_s3_are_merged_there(bucket, tmp_path, scratch, monkeypatch):
    model, data = network(), images(16)
    here = fastconv.extract(model, data, tmp_path / "here.h5", **OPTIONS)
    parts = [f"s3://runs/part{i}.h5" for i in range(2)]
    for i, part in enumerate(parts):
        fastconv.extract(model, data, part, shard=(i, 2), **OPTIONS).close()
    with pytest.raises(InputError, match=r"each once; got 0/2$"):
        fastconv.merge(parts[:1], "s3://runs/merged.h5")
    for call in (fastconv.merge, lambda *a: fastconv.extract(model, data, a[1], **OPTIONS)):
        with pytest.raises(OutputError, match=r"nowhere/x\.h5: there is no bucket nowhere"):
            call(parts, "s3://nowhere/x.h5")
    plain = bucket.put_file
    monkeypatch.setattr(bucket, "put_file", partial(put_all_but_the_end, plain))
    with pytest.raises(OutputError, match="cut off"):
        fastconv.merge(parts, "s3://runs/merged.h5")
    monkeypatch.setattr(bucket, "put_file", plain)
    with pytest.raises(FileFormatError):  # nothing that passes for a run
        fastconv.open("s3://runs/merged.h5")
    assert cli(["merge", *parts, "-o", "s3://runs/merged.h5"]) == 2  # it is there
    with fastconv.merge(parts, "s3://runs/merged.h5", overwrite=True) as merged:
        assert merged.path == "s3://runs/merged.h5" and merged.digest() == here.digest()
    assert not any(scratch.iterdir())
    here.close()


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_memory_and_file_urls(path):
    system = fsspec.filesystem("memory")
    for file in path.parent.rglob(f"{path.stem}*/*.h5"):
        system.pipe(f"/runs/{file.relative_to(path.parent)}", file.read_bytes())
    system.pipe(f"/runs/{path.name}", path.read_bytes())
    with fastconv.open(path) as here:
        for url in (f"memory://runs/{path.name}", f"file://{path}"):
            with fastconv.open(url) as there:
                assert there.digest() == here.digest()
                np.testing.assert_array_equal(there["a/b#1"].map(2), here["a/b#1"].map(2))


def test_a_url_of_no_known_kind_or_without_fsspec_is_said():
    with pytest.raises(InputError, match=r"nothing://run\.h5 cannot be opened"):
        fastconv.open("nothing://run.h5")
    code = (
        "import sys; sys.modules['fsspec'] = sys.modules['fsspec.core'] = None\n"
        "import fastconv; fastconv.open('s3://bucket/run.h5')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'fastconv[remote]'" in done.stderr.splitlines()[-1]


def test_garbage_of_h5py_does_not_stop_a_thread_that_fetches():
    code = """
import gc, sys, threading
from pathlib import Path
import fsspec, h5py
from fsspec.spec import AbstractFileSystem
import fastconv

class Threaded(AbstractFileSystem):
    protocol = "threaded"

    def info(self, path, **options):
        return {"name": path, "size": Path(path).stat().st_size, "type": "file"}

    def cat_file(self, path, start=None, end=None, **options):
        got = []
        def fetch():
            kept = [[i] for i in range(100_000)]  # many a collection, if there were any
            got.append(Path(path).read_bytes()[start:end])
        thread = threading.Thread(target=fetch)
        thread.start()
        thread.join()
        return got[0]

def litter():
    file = h5py.File(sys.argv[1], locking=False)
    cycle = {"group": file["/"]}
    cycle["itself"] = cycle

fsspec.register_implementation("threaded", Threaded)
for _ in range(20):
    litter()
    with fastconv.open(f"threaded://{sys.argv[1]}") as run:
        litter()
        run.digest()
assert gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", code, RUNS[1]], check=True, timeout=60)


def test_a_read_that_is_cut_off_is_an_error_not_a_wrong_value(reads, monkeypatch):
    plain = Counted.cat_file
    with fastconv.open(f"counted://{RUNS[1]}") as run:
        layer = run["conv1"]
        monkeypatch.setattr(Counted, "cat_file", lambda *a, **k: plain(*a, **k)[:-1])
        with pytest.raises(FileFormatError, match=r"run-2\.0\.h5"):
            layer.result()


def test_one_filter_of_a_large_run_needs_few_requests_and_bytes(tmp_path, reads):
    made, _ = synthetic.layer_result(synthetic.layer_info("0", 64, size=9), k=9, samples=40)
    rng, infos = np.random.default_rng(0), [synthetic.layer_info(f"b{i}", 64) for i in range(60)]

    def layers():
        for info in infos:
            made.info, made.weight = info, rng.normal(size=(64, 128, 3, 3)).astype(np.float32)
            yield made

    path = write_run(tmp_path / "run.h5", {}, layers())
    assert path.stat().st_size > 15e6
    for name in ("b0", "b31", "b59"):
        reads.clear()
        with fastconv.open(f"counted://{path}") as run:
            assert len(run.layers) == 60
            layer = run[name]
            stats, hits, pictures = layer.stats["mean"], layer.topk, layer.patches[3]
        np.testing.assert_array_equal(pictures, made.patches[3])
        np.testing.assert_array_equal(hits.values, made.topk["value"])
        assert stats.shape == (64,)
        assert len(reads) < 24 and sum(b - a for a, b in reads) < 800_000
        assert len(set(reads)) == len(reads)  # nothing twice


def test_metadata_are_fetched_with_their_neighbours(tmp_path, reads, monkeypatch):
    (tmp_path / "x").write_bytes(bytes(10_000))
    monkeypatch.setattr(remote, "BLOCK", 100)
    monkeypatch.setattr(remote, "AROUND", 4)
    monkeypatch.setattr(remote, "SMALL", 50)
    file = remote.open_url(f"counted://{tmp_path / 'x'}")
    for start, size in ((2_010, 10), (2_110, 10), (2_810, 10), (2_410, 10), (9_990, 10)):
        file.seek(start)
        file.read(size)
    assert reads == [(2_000, 2_400), (2_400, 3_200), (9_600, 10_000)]  # the hole is filled
    reads.clear()
    file.fetch([(500, 600), (700, 750), (60_000, 61_000)])  # the last one is beyond the end
    assert reads == [(500, 800)]


def test_few_blocks_are_kept_and_neighbours_come_at_once(tmp_path, reads, monkeypatch):
    content = np.random.default_rng(0).bytes(10_000)
    (tmp_path / "x").write_bytes(content)
    monkeypatch.setattr(remote, "BLOCK", 100)
    monkeypatch.setattr(remote, "MAX_BLOCKS", 5)
    monkeypatch.setattr(remote, "SMALL", 0)
    file = remote.open_url(f"counted://{tmp_path / 'x'}")
    for start, size in ((0, 1), (250, 300), (50, 1), (9_990, 99), (0, 10_000), (20_000, 5)):
        file.seek(start)
        assert file.read(size) == content[start : start + size]
        assert len(file._blocks) <= 5
    assert reads[:3] == [(0, 100), (200, 600), (9_900, 10_000)]

"""Runs that lie elsewhere: read through fsspec, no more than is asked for."""

import gc
import pickle
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import fsspec
import numpy as np
import pytest
from helpers import synthetic
from helpers.counted_files import Counted

import fastconv
from fastconv.errors import FileFormatError, InputError
from fastconv.store import open_file, read_patches, remote
from fastconv.store.writer import write_run

ARCHIVE = Path(__file__).parents[1] / "archive"
RUNS = [ARCHIVE / name for name in ("run-1.0.h5", "run-2.0.h5")]


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


def test_garbage_waits_until_the_last_of_several_threads_has_fetched():
    with ExitStack() as one, ExitStack() as other:
        one.enter_context(remote._no_collection)
        other.enter_context(remote._no_collection)
        one.close()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_was_read_is_not_fetched_again(reads):
    with fastconv.open(f"counted://{RUNS[1]}") as run:
        layer = run["conv1"]
        mean, values = layer.stats["mean"], layer.topk.values
        run._file._remote._blocks.clear()  # as if others had come between
        reads.clear()
        assert layer.stats["mean"] is mean and layer.topk.values is values
        assert reads == []


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


def test_the_kernel_of_one_filter_is_fetched_with_few_others(tmp_path, reads):
    made, _ = synthetic.layer_result(synthetic.layer_info("0", 256))
    made.weight = np.random.default_rng(0).normal(size=(256, 128, 3, 3)).astype(np.float32)
    path = write_run(tmp_path / "run.h5", {}, [made])
    with fastconv.open(f"counted://{path}") as run:
        np.testing.assert_array_equal(run["0"].weight_of(40), made.weight[40])
    assert sum(b - a for a, b in reads) < 0.6 * made.weight.nbytes


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


class GoneError(Exception):
    """What a library for some kind of URL raises."""


def gone(*args, **options):
    raise GoneError("the endpoint\nis gone")


@pytest.mark.parametrize("read", ["stats", "topk", "patches", "weight", "map"])
def test_a_connection_that_is_lost_is_said_and_may_come_back(reads, monkeypatch, read):
    """Not blamed on the file, of whatever kind the error is."""
    monkeypatch.setattr(remote, "BLOCK", 64)
    monkeypatch.setattr(remote, "AROUND", 1)
    wanted = {
        "stats": lambda run: run["conv1"].stats["mean"],
        "topk": lambda run: run["conv1"].topk.values,
        "patches": lambda run: run["conv1"].patches[0],
        "weight": lambda run: run["conv1"].weight,
        "map": lambda run: run["conv1"].map(2),
    }[read]
    with fastconv.open(RUNS[1]) as here, fastconv.open(f"counted://{RUNS[1]}") as run:
        with monkeypatch.context() as patch:
            patch.setattr(Counted, "cat_file", gone)
            with pytest.raises(FileFormatError, match=r"^cannot read counted:.*: the endpoint$"):
                wanted(run)
        np.testing.assert_array_equal(wanted(run), wanted(here))


def test_a_server_without_ranges_is_said(reads, monkeypatch):
    monkeypatch.setattr(Counted, "cat_file", lambda self, path, **k: Path(path).read_bytes())
    with pytest.raises(FileFormatError, match="sends whole files only; download it first"):
        fastconv.open(f"counted://{RUNS[1]}")
    monkeypatch.setattr(Counted, "info", lambda self, path: {"name": path, "size": None})
    with pytest.raises(FileFormatError, match="the server does not say its size"):
        fastconv.open(f"counted://{RUNS[1]}")


@pytest.mark.parametrize("left", ["layer", "maps", "tree"])
def test_what_was_left_open_does_not_crash_python_as_it_ends(left):
    code = """
import sys
from contextlib import ExitStack
from pathlib import Path
import fsspec
from fsspec.spec import AbstractFileSystem
import fastconv

class Plain(AbstractFileSystem):
    protocol = "plain"

    def info(self, path, **options):
        return {"name": path, "size": Path(path).stat().st_size, "type": "file"}

    def cat_file(self, path, start=None, end=None, **options):
        return Path(path).read_bytes()[start:end]

fsspec.register_implementation("plain", Plain)
run = fastconv.open(f"plain://{sys.argv[1]}")
left = {"layer": lambda: run["conv1"], "maps": lambda: run["a/b#1"].map(2), "tree": run.to_xarray}
left = left[sys.argv[2]]()
"""
    subprocess.run([sys.executable, "-c", code, RUNS[1], left], check=True, timeout=60)


def test_pictures_beyond_what_is_kept_are_fetched_once(tmp_path, reads, monkeypatch):
    """In pieces of many chunks, also where each of them is shown once; then they are in memory."""
    made, _ = synthetic.layer_result(synthetic.layer_info("0", 300, size=9), k=9)
    made.topk["sample"] = np.arange(2700).reshape(300, 9)  # a picture each
    pictures = np.random.default_rng(0).integers(0, 255, (300, 9, 15, 15, 3), np.uint8)
    made.patches, made.patch_plan = pictures, None
    path = write_run(tmp_path / "run.h5", synthetic.CONFIG, [made])
    monkeypatch.setattr(open_file, "MOST_CHUNKS", 8)
    monkeypatch.setattr(read_patches, "PIECE", 2**17)
    monkeypatch.setattr(remote, "MAX_BLOCKS", 48)
    with fastconv.open(f"counted://{path}") as run:
        patches = run["0"].patches
        reads.clear()
        np.testing.assert_array_equal(patches[()], pictures)
        assert len(reads) <= pictures.nbytes / 2**17 + 1
        assert sum(b - a for a, b in reads) < 1.1 * pictures.nbytes
        reads.clear()
        np.testing.assert_array_equal(patches[::-1], pictures[::-1])
        assert reads == []

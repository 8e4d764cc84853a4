"""Streams that do not tell their length: one pass, and the bytes of data that are read by index."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from helpers import stream_run
from helpers.networks import datasets, images, network
from helpers.shared_run import COUNT, data
from helpers.stream_run import EVERYTHING, Stream
from torch.utils.data import IterableDataset, TensorDataset

import fastconv
from fastconv.data import open_data
from fastconv.engines.ranks import Rank
from fastconv.errors import DataError, FingerprintError, InputError
from fastconv.run.claims import Claims
from fastconv.store.parts import PartsFolder

SCRIPT = Path(stream_run.__file__)
HEAD = 17  # samples that a pass over the beginning reads at most
ALWAYS_DIFFERENT = "/run/config_json"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def by_index(tmp_path_factory):
    """The datasets of a run over the same samples, which are read by index."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "run.h5"
    fastconv.extract(network(), data(), out, **EVERYTHING).close()
    torch.set_num_threads(before)
    return datasets(out)


def same(out, whole):
    found = datasets(out)
    assert found.keys() == whole.keys()
    assert [n for n in whole if found[n] != whole[n] and not n.endswith("config_json")] == []
    assert not Path(f"{out}.parts").exists()


def read_once(stream):
    assert [n for n in stream.passes if n > HEAD] == [stream.count], stream.passes


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_is_read_once_and_leaves_what_data_by_index_leave(tmp_path, by_index, num_workers):
    stream, out = Stream(), tmp_path / "run.h5"
    with fastconv.extract(network(), stream, out, num_workers=num_workers, **EVERYTHING) as run:
        assert run.config["fingerprint"]["data"]["length"] == COUNT
    same(out, by_index)
    if num_workers == 0:
        read_once(stream)
    stream.passes.clear()
    fastconv.extract(network(), stream, out, **EVERYTHING).close()  # finished: at once
    assert max(stream.passes) <= HEAD
    assert fastconv.verify(out, network(), Stream(), hits=1)


@pytest.mark.parametrize("count", [1, 3, 8, 12, 17, 40])
def test_any_length_and_maps_of_all(tmp_path, count):
    options = {"batch_size": 4, "samples": True, "maps": "all", "topk": 3, "progress": False}
    stream, x = Stream(count), images(COUNT)[:count]
    fixed = TensorDataset(x, torch.arange(count) % 4)
    fastconv.extract(network(), fixed, tmp_path / "fixed.h5", **options).close()
    fastconv.extract(network(), stream, tmp_path / "run.h5", **options).close()
    same(tmp_path / "run.h5", datasets(tmp_path / "fixed.h5"))
    assert sum(n > HEAD for n in stream.passes) == (count > HEAD)


def environment(**more):
    paths = [str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **more}


@pytest.mark.parametrize("units", [2, 30])  # of 31
def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path, by_index, units, monkeypatch):
    out = tmp_path / "run.h5"
    command = [sys.executable, SCRIPT, out, str(units), tmp_path / "died"]
    killed = subprocess.run(command, env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("run.h5.parts/u*.h5"))) == units and not out.exists()
    forwards, plain = [], fastconv.run.job.Job.forward
    monkeypatch.setattr(
        fastconv.run.job.Job, "forward", lambda *a, **k: forwards.append(1) or plain(*a, **k)
    )
    stream = Stream()
    fastconv.extract(network(), stream, out, **EVERYTHING).close()
    assert len(forwards) == 3 * (31 - units)  # each unit as it is, and under two conditions
    read_once(stream)
    same(out, by_index)


def test_several_processes_share_a_stream_and_one_of_them_dies(tmp_path, by_index):
    ranks = []
    for number in range(2):
        place = {"RANK": str(number), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
        command = [sys.executable, SCRIPT, tmp_path / "run.h5", "4", tmp_path / "died"]
        ranks.append(subprocess.Popen(command, env=environment(**place)))
    assert sorted(rank.wait(timeout=120) for rank in ranks) == [-signal.SIGKILL, 0]
    same(tmp_path / "run.h5", by_index)


def test_shares_of_a_stream_are_taken_forwards_until_its_end_is_known(tmp_path):
    with PartsFolder(tmp_path / "run.h5", shared=True) as folder:
        ranks = [Claims(folder, None, Rank(i, 3)) for i in range(3)]
        taken = [ranks[i % 3].take() for i in range(200)]
        assert sorted(u for share in taken for u in share) == list(range(taken[-1].stop))
        assert taken[-1].stop > 4000 and len(taken[0]) == 1
        assert not ranks[0].finished()
        for claims in ranks:
            claims.total = 4000
        assert ranks[0].take() is None or ranks[0].take() is None
        for claims in ranks:
            claims.release()


def test_shards_of_a_stream_are_merged(tmp_path, by_index):
    parts = [tmp_path / f"{i}.h5" for i in range(2)]
    for i, part in enumerate(parts):
        fastconv.extract(network(), Stream(), part, shard=(i, 2), **EVERYTHING).close()
    fastconv.merge(parts, tmp_path / "run.h5").close()
    same(tmp_path / "run.h5", by_index)


def interrupted(tmp_path, monkeypatch, after, *, options=EVERYTHING):
    """A run over a stream that was stopped after so many units."""
    out, taken = tmp_path / "run.h5", []
    recording = fastconv.run.recording.Recording
    plain = recording.take

    def take(self, *batch):
        if len(taken) == after:
            raise KeyboardInterrupt
        taken.append(1)
        plain(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(recording, "take", take)
        with pytest.raises(KeyboardInterrupt):
            fastconv.extract(network(), Stream(), out, **options)
    return out


def test_a_stream_that_has_changed_is_noticed_where_it_can_be(tmp_path, monkeypatch):
    out = interrupted(tmp_path, monkeypatch, 20)
    with pytest.raises(DataError, match=r"ended after 40 samples, but .* holds later ones"):
        fastconv.extract(network(), Stream(40), out, **EVERYTHING)
    other = Stream()
    other.x = other.x + 1
    with pytest.raises(FingerprintError, match=r"data\.contents_sha256 was"):
        fastconv.extract(network(), other, out, **EVERYTHING)
    with PartsFolder(out) as folder:  # as a run leaves it that was stopped as the stream ended
        folder.write_end(COUNT)
    with pytest.raises(DataError, match=r"ended before sample 100"):
        fastconv.extract(network(), Stream(100), out, **EVERYTHING)
    fastconv.extract(network(), Stream(), out, **EVERYTHING).close()
    with pytest.raises(FingerprintError, match=r"data\.contents_sha256 was"):
        fastconv.extract(network(), other, out, **EVERYTHING)


def test_a_run_that_was_stopped_after_the_end_does_not_read_the_stream_again(
    tmp_path, monkeypatch, by_index
):
    out = tmp_path / "run.h5"

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fastconv.run.output_file.write_run", stop)
        with pytest.raises(KeyboardInterrupt):
            fastconv.extract(network(), Stream(), out, **EVERYTHING)
    stream = Stream()
    fastconv.extract(network(), stream, out, **EVERYTHING).close()
    assert max(stream.passes) <= HEAD
    same(out, by_index)


def test_progress_of_a_stream_has_no_end(tmp_path, capsys):
    options = {**EVERYTHING, "progress": True, "maps": None}
    fastconv.extract(network(), Stream(40), tmp_path / "run.h5", **options).close()
    said = capsys.readouterr().err
    assert "40 samples, " in said and "samples/s, 0:0" in said and "left" not in said


def test_maps_of_a_stream(tmp_path):
    options = {"batch_size": 4, "progress": False, "layers": ["0"]}
    for wrong in (slice(None), slice(-3, None), slice(2, -1)):
        with pytest.raises(InputError, match="does not tell its length"):
            fastconv.extract(network(), Stream(20), tmp_path / "no.h5", maps=wrong, **options)
    with pytest.warns(UserWarning, match="ended after 20 samples; there is no sample 23"):
        run = fastconv.extract(
            network(), Stream(20), tmp_path / "run.h5", maps=slice(16, 24), **options
        )
    with run:
        assert run["0"].map_samples.tolist() == [16, 17, 18, 19]


class Named(IterableDataset):
    """Dicts as those of WebDataset."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        for i, x in enumerate(images(COUNT)[:40]):
            yield {"__key__": f"shard/{i:05}", "image": x, "cls": i % 3, "place": f"p{i}"}


def test_names_and_columns_are_kept_as_they_come(tmp_path, monkeypatch):
    options = {"batch_size": 8, "columns": ["place"], "progress": False, "thumbnails": False}
    out, stop = tmp_path / "run.h5", threading.Event()
    recording = fastconv.run.recording.Recording
    plain = recording.take

    def take(self, number, *batch):
        if number == 3 and not stop.is_set():
            stop.set()
            raise KeyboardInterrupt
        plain(self, number, *batch)

    monkeypatch.setattr(recording, "take", take)
    with pytest.raises(KeyboardInterrupt):
        fastconv.extract(network(), Named(), out, **options)
    with fastconv.extract(network(), Named(), out, **options) as run:
        assert list(run.samples.keys) == [f"shard/{i:05}" for i in range(40)]
        assert list(run.columns["place"]) == [f"p{i}" for i in range(40)]


def test_streams_of_hugging_face_pass_over_samples_by_themselves(tmp_path):
    datasets_library = pytest.importorskip("datasets")
    rows = [[float(i)] * 4 for i in range(20)]
    stream = datasets_library.Dataset.from_dict({"x": rows}).with_format("torch")
    samples = open_data(stream.to_iterable_dataset())
    assert [x[:, 0].tolist() for x, _ in samples.batches([[9], [17, 19]])] == [[9], [17, 19]]

    class Beyond:  # units that begin after the end
        def __iter__(self):
            return iter([range(30, 34)])

    assert list(samples.batches(Beyond())) == []
    assert samples.length == 20


def test_maps_of_all_say_what_each_sample_takes(tmp_path, capsys):
    options = {"batch_size": 4, "layers": ["0"], "maps": "all"}
    fastconv.extract(network(), Stream(20), tmp_path / "run.h5", **options).close()
    assert "maps of every sample x 1 layers: 3.2 kB uncompressed" in capsys.readouterr().err

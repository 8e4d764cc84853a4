"""TensorBoard itself reads the log, and answers over HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
import warnings
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest
from export.conftest import HOSTILE

import fastconv
from fastconv import export
from fastconv.errors import InputError, OutputError

pytest.importorskip("tensorboard")


@pytest.fixture(scope="module")
def log(odd_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorboard") / "log"
    with fastconv.open(odd_file) as run, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert export.tensorboard(run, folder) == folder
    return folder


@pytest.fixture(scope="module")
def events(log):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(log), size_guidance={"images": 0, "histograms": 0, "scalars": 0})
    return read.Reload()


@pytest.fixture(scope="module")
def served(log):
    """Calls TensorBoard on the log: a path in, JSON or bytes out."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--load_fast", "false"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, env={**os.environ, "PYTHONWARNINGS": "ignore"}, **quiet)

    def get(path):
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            body = answer.read()
            return json.loads(body) if "json" in answer.headers["Content-Type"] else body

    try:
        until = time.monotonic() + 60
        while True:
            try:
                if get("/data/runs"):
                    break
            except URLError:
                assert server.poll() is None
            assert time.monotonic() < until, "TensorBoard did not load the log within a minute"
            time.sleep(0.3)
        yield get
    finally:
        server.terminate()
        server.wait(30)


def test_images_answer(served, odd_run):
    tags = served("/data/plugin/images/tags")["."]
    for name in odd_run.layers[:-1]:
        kinds = [tag.split("/")[1] for tag in tags if tag.startswith(f"{name}/")]
        wanted = ["filters and their strongest patches"]
        wanted += [] if odd_run[name].weight is None else ["kernels"]
        wanted += ["activation maps (rows: filters, columns: samples)"]
        assert sorted(kinds) == sorted(wanted)
    query = f"run=.&tag={quote('two/kernels')}&sample=0"
    (found,) = served(f"/data/plugin/images/images?{query}")
    picture = served(f"/data/plugin/images/individualImage?{found['query']}")
    assert picture.startswith(b"\x89PNG")


def test_histograms_are_those_of_the_file(served, odd_run):
    stats = odd_run["two"].stats
    for tag, count in (
        ("two/activation", stats["count"].sum()),
        ("two/activation of filter 03", stats["count"][3]),
    ):
        ((_, step, buckets),) = served(f"/data/plugin/histograms/histograms?run=.&tag={quote(tag)}")
        buckets = np.array(buckets)
        assert step == 0 and buckets[:, 2].sum() == pytest.approx(count)
    assert buckets[0, 0] <= stats["min"][3] and buckets[-1, 1] == pytest.approx(stats["max"][3])
    middle = buckets[:, :2].mean(1)
    assert (middle * buckets[:, 2]).sum() / count == pytest.approx(stats["mean"][3], abs=0.02)


def test_the_projector_answers_with_sprites_and_metadata(served, odd_run):
    info = served("/data/plugin/projector/info?run=.")["embeddings"]
    found = {entry["tensorName"].rpartition(":")[0]: entry for entry in info}
    weight = odd_run["two"].weight
    assert found["two/filters"]["tensorShape"] == [5, weight[0].size]
    assert found["two/samples"]["tensorShape"] == [11, 5]
    name = quote(found["two/samples"]["tensorName"])
    metadata = served(f"/data/plugin/projector/metadata?run=.&name={name}").decode()
    header, *rows = (line.split("\t") for line in metadata.splitlines())
    assert header == ["sample", "label", "name"] and len(rows) == 11
    assert rows[3] == ["3", "0", "faces/größe_003.png"]
    name = quote(found["two/filters"]["tensorName"])
    values = np.frombuffer(served(f"/data/plugin/projector/tensor?run=.&name={name}"), np.float32)
    np.testing.assert_allclose(values.reshape(5, -1), weight.reshape(5, -1), rtol=1e-6)
    sprite = served(f"/data/plugin/projector/sprite_image?run=.&name={name}")
    assert sprite.startswith(b"\x89PNG")


def test_options_are_hparams(events):
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_statistics_are_scalars_and_missing_ones_are_left_out(events, odd_run):
    assert events.Scalars("dead/dead")[0].value == 1
    assert events.Scalars("two/max")[0].value == pytest.approx(odd_run["two"].stats["max"].max())
    tags = events.Tags()["scalars"]
    assert "nan/nonfinite" in tags and "nan/mean" not in tags


def test_hostile_names_stay_in_the_folder(log, events):
    outside = [p for p in log.parent.rglob("*") if log not in p.parents and p != log]
    assert not outside
    assert any(
        tag.startswith(".._.._<b>") or tag.startswith("%2E.") for tag in events.Tags()["images"]
    )
    assert not any(HOSTILE[:6] in tag for tag in events.Tags()["images"])


def test_a_training_loop_gives_its_own_writer(bare_run, odd_run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for epoch in range(2):
            export.tensorboard(bare_run, writer=writer, global_step=epoch)
        writer.add_scalar("loss", 1.0, 2)  # it is still open
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [image.step for image in events.Images("bare/kernels")] == [0, 1]
    assert events.Scalars("loss")[0].step == 2
    assert "hparams" not in events.summary_metadata


def test_bad_input_is_told_in_one_line(bare_run, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"logdir=.* or .*writer="):
        export.tensorboard(bare_run)
    with pytest.raises(InputError, match="one of the two"):
        export.tensorboard(bare_run, tmp_path, writer=object())
    export.tensorboard(bare_run, tmp_path / "log")
    with pytest.raises(OutputError, match="already holds events"):
        export.tensorboard(bare_run, tmp_path / "log")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        export.tensorboard(bare_run, tmp_path / "file")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        InputError, match=r"tensorboard is not installed; pip install 'fastconv\[tens"
    ):
        export.tensorboard(bare_run, tmp_path / "other")

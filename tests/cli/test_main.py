import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import fastconv
from fastconv.cli import doctor
from fastconv.cli.main import main

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3))

def fails():
    class Net(nn.Conv2d):
        def forward(self, x):
            raise RuntimeError("out of luck")
    return Net(3, 5, 3)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a network and twenty pictures."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "net.py").write_text(NET)
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        pixels = rng.integers(0, 256, (14, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i:02}.png")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


JOB = ("net.py:build", "photos", "--size", "12")


@pytest.fixture
def run_file(here):
    if not (here / "run.h5").exists():
        assert main(["extract", *JOB, "-o", "run.h5", "--batch-size", "7", "--samples"]) == 0
    return "run.h5"


def test_extract_makes_what_the_options_say(here, capsys):
    options = ["--layers", "0", "--topk", "3", "--order", "smallest", "--maps", "2:5", "--samples"]
    assert main(["extract", *JOB, "-o", "some.h5", "--stage", "act", *options]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("some.h5: 1 layers, 5 filters, ")
    assert "20 of 20 samples (100%)" in err
    with fastconv.open("some.h5") as run:
        layer = run["0"]
        assert layer.info.stage == "act"
        assert layer.topk.values.shape == (5, 3)
        assert (layer.topk.values == 0).all()  # the smallest values after a ReLU
        assert layer.map_samples.tolist() == [2, 3, 4]
        assert layer.samples.max.shape == (20, 5)
        assert run.samples.keys[3] == "03.png"


def test_finished_work_returns_at_once_and_is_never_replaced_unasked(run_file, capsys):
    before = Path(run_file).stat().st_mtime_ns
    same = ["extract", *JOB, "-o", run_file, "--batch-size", "7", "--samples"]
    assert main(same) == 0
    assert main([*same, "--topk", "2"]) == 2
    error = capsys.readouterr().err
    assert "topk was 9, now 2" in error
    assert error.count("\n") == 1
    assert Path(run_file).stat().st_mtime_ns == before


def test_shards_merge_into_the_same_file(here, run_file):
    shards = []
    for i in range(3):
        shards.append(f"shard{i}.h5")
        job = ["extract", *JOB, "-o", shards[-1], "--batch-size", "7", "--samples"]
        assert main([*job, "--shard", f"{i}/3", "--quiet"]) == 0
    assert main(["merge", *shards, "-o", "merged.h5"]) == 0
    with fastconv.open("merged.h5") as merged, fastconv.open(run_file) as whole:
        for name in whole.layers:
            assert np.array_equal(merged[name].topk.values, whole[name].topk.values)
            assert np.array_equal(merged[name].stats["var"], whole[name].stats["var"])


def test_inspect_shows_layers_filters_and_hits(run_file, capsys):
    assert main(["inspect", run_file]) == 0
    text = capsys.readouterr().out
    with fastconv.open(run_file) as run:
        layer = run["2"]
        best = layer.topk.values[:, 0].argmax()
        value, sample = layer.topk.values[best, 0], layer.topk.sample[best, 0]
    assert text.startswith("run.h5: 2 layers, 20 samples, stage conv")
    (row,) = [line for line in text.splitlines() if line.startswith("2 ")]
    assert row.split()[:4] == ["2", "4", "8x8", "5x5"]
    assert f"{value:.4g}" in row
    assert f" {sample}  " in row
    assert main(["inspect", run_file, "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4 + 4
    assert main(["inspect", run_file, "2", "3"]) == 0
    text = capsys.readouterr().out
    assert "filter 3: 9 hits\n" in text
    assert ".png" in text


def test_both_orders_are_kept_and_inspected(here, capsys):
    assert main(["extract", *JOB, "-o", "both.h5", "--order", "both", "--topk", "3"]) == 0
    capsys.readouterr()
    assert main(["inspect", "both.h5", "2", "3"]) == 0
    text = capsys.readouterr().out
    with fastconv.open("both.h5") as run:
        hits = [getattr(run["2"], name) for name in ("topk", "bottomk")]
    parts = text.split("filter 3: 3 ")[1:]
    assert [part.split("\n")[0] for part in parts] == [
        "hits of the largest values",
        "of the smallest",
    ]
    for part, found in zip(parts, hits, strict=True):
        values = [line.split()[1] for line in part.splitlines() if line.strip()[:1].isdigit()]
        assert values == [f"{value:.4g}" for value in found.values[3]]


@pytest.mark.parametrize("layer", [[], ["0"], ["0", "1"]])
def test_inspect_fits_100_columns_and_any_run(here, capsys, layer):
    name = "bare.h5"
    if not pathlib.Path(name).exists():
        options = ["--no-quantiles", "--no-patches", "--quiet"]
        assert main(["extract", *JOB, "-o", name, *options]) == 0
    capsys.readouterr()
    assert main(["inspect", name, *layer]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


@pytest.mark.parametrize(("order", "strongest"), [("largest", 1), ("both", 1), ("smallest", 0)])
def test_the_strongest_filter_is_the_one_of_the_extreme_hit(tmp_path, capsys, order, strongest):
    conv = torch.nn.Conv2d(1, 2, 1)
    with torch.no_grad():  # one filter is far below 0 everywhere
        conv.weight.fill_(0.1)
        conv.bias.copy_(torch.tensor([-9.0, 0]))
    path = tmp_path / "run.h5"
    fastconv.extract(conv, torch.rand(4, 1, 5, 5), path, order=order, progress=False).close()
    assert main(["inspect", str(path)]) == 0
    row = capsys.readouterr().out.splitlines()[3].split()
    assert row[7] == str(strongest)


def test_inspect_of_an_unknown_layer_or_filter_is_one_line(run_file, capsys):
    assert main(["inspect", run_file, "conv9"]) == 2
    assert main(["inspect", run_file, "0", "5"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "filters 0 to 4" in errors[1]


def test_verify_tells_right_from_wrong_by_its_exit_code(run_file, here, capsys):
    assert main(["verify", run_file, *JOB]) == 0
    assert "everything holds" in capsys.readouterr().out
    (here / "changed.h5").write_bytes((here / run_file).read_bytes())
    with h5py.File("changed.h5", "r+") as file:
        file["run/layers/0/topk/value"][2, 1] += 1e-3
    assert main(["verify", "changed.h5", *JOB]) == 1
    assert "FAIL" in capsys.readouterr().out


BAD = {
    "no such file": (["inspect", "none.h5"], "none.h5"),
    "no fastconv file": (["inspect", "net.py"], "net.py"),
    "unknown layer": (["extract", *JOB, "-o", "x.h5", "--layers", "conv"], "conv"),
    "wrong channels": (["extract", "net.py:build", "grey.npy", "-o", "x.h5"], "channel"),
    "unknown backend": (["extract", *JOB, "-o", "x.h5", "--backend", "gpu"], "gpu"),
    "no folder": (["extract", *JOB, "-o", "none/x.h5"], "none"),
    "no data": (["extract", "net.py:build", "none", "-o", "x.h5"], "there is no none"),
    "no option": (["extract", *JOB], "-o"),
    "bad maps": (["extract", *JOB, "-o", "x.h5", "--maps", "some"], "indices such as 0,5,9"),
    "maps outside": (["extract", *JOB, "-o", "x.h5", "--maps", "20"], "no sample 20"),
    "bad storage": (["extract", *JOB, "-o", "x.h5", "--maps-dtype", "int4"], "float16"),
    "bad mode": (["extract", *JOB, "-o", "x.h5", "--maps", "1", "--normalize", "z"], "zscore"),
    "modes of no maps": (["extract", *JOB, "-o", "x.h5", "--normalize", "l2"], "give maps"),
    "bad shard": (["extract", *JOB, "-o", "x.h5", "--shard", "3"], "I/N"),
    "no such device": (["extract", *JOB, "-o", "x.h5", "--device", "abacus"], "abacus"),
    "no command": ([], "COMMAND"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(here, capsys, case):
    np.save("grey.npy", np.zeros((4, 1, 12, 12), np.float32))
    arguments, message = BAD[case]
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert message in error
    assert not pathlib.Path("x.h5").exists()


def test_a_model_that_raises_shows_where_and_is_no_failed_check(here, capsys):
    assert main(["extract", "net.py:fails", *JOB[1:], "-o", "x.h5"]) == 3
    error = capsys.readouterr().err
    assert "net.py" in error
    assert error.endswith("RuntimeError: out of luck\n")


def test_doctor_names_versions_backends_and_reasons(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for expected in ("torch", "HDF5", "threads", "channel_reduce", "cpu, reference", "no cuda"):
        assert expected in text


def test_version_and_help(capsys):
    for argument, expected in (("--version", fastconv.__version__), ("--help", "verify")):
        with pytest.raises(SystemExit) as stop:
            main([argument])
        assert stop.value.code == 0
        assert expected in capsys.readouterr().out


SLOW_NET = """
import time
import torch
from torch import nn

class Slow(nn.Conv2d):
    def forward(self, x):
        time.sleep(0.2)
        return super().forward(x)

def build():
    return Slow(1, 2, 3)

def data():
    return torch.arange(40 * 64.0).reshape(40, 1, 8, 8)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_finishes_the_unit_and_the_same_command_goes_on(tmp_path, workers):
    """As a terminal sends it: to the whole group of processes."""
    (tmp_path / "slow.py").write_text(SLOW_NET)
    start = [sys.executable, "-m", "fastconv", "extract", "slow.py:build", "slow.py:data"]
    options = ["--batch-size", "2", "--num-workers", workers, "--samples", "--maps", "0:9"]
    command = [*start, "-o", "run.h5", *options]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not list(tmp_path.glob("run.h5.parts/u*.h5")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130
    assert said[-1] == "fastconv: interrupted; the same command goes on from here"
    assert not any("Traceback" in line for line in said)
    done = int(re.match(r"(\d+) of 40 samples", said[-2])[1])
    assert 0 < done < 40 and done % 2 == 0
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"\n{done} of 40 samples were done before\n" in again.stderr
    whole = [*start, "-o", "whole.h5", *options, "--quiet"]
    subprocess.run(whole, cwd=tmp_path, check=True)
    with fastconv.open(tmp_path / "run.h5") as run, fastconv.open(tmp_path / "whole.h5") as other:
        assert run.digest() == other.digest()


def test_maps_are_kept_as_the_options_say(here, capsys):
    options = ["--maps", "1,4", "--maps-dtype", "uint8", "--normalize", "minmax", "--layers", "0"]
    assert main(["extract", *JOB, "-o", "maps.h5", *options]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("maps of 2 samples x 1 layers: 1 kB uncompressed, about 900 bytes on")
    with fastconv.open("maps.h5") as run:
        maps = run["0"].maps()
        assert (maps.storage, maps.normalize, maps.samples.tolist()) == ("uint8", "minmax", [1, 4])
        values = run["0"].map(4)
        assert values.shape == (5, 10, 10) and values.min() > -0.01 and values.max() < 1.01
    assert main(["extract", *JOB, "-o", "maps.h5", *options[:-4]]) == 2
    error = capsys.readouterr().err
    assert 'normalize was "minmax", now null' in error and error.count("\n") == 1


def test_all_maps_may_be_kept_exactly(here):
    options = ["--maps", "all", "--maps-dtype", "exact", "--layers", "2", "--stage", "conv"]
    assert main(["extract", *JOB, "-o", "all.h5", *options, "--quiet"]) == 0
    with fastconv.open("all.h5") as run:
        stacked = np.stack([run["2"].map(sample) for sample in range(20)])
        np.testing.assert_array_equal(stacked.max((0, 2, 3)), run["2"].stats["max"])


def test_a_broken_picture_is_an_error_or_is_left_out(here, tmp_path, capsys):
    photos = tmp_path / "photos"
    shutil.copytree("photos", photos)
    picture = photos / "07.png"
    picture.write_bytes(picture.read_bytes()[:80])
    job = ["extract", "net.py:build", str(photos), "--size", "12", "-o", str(tmp_path / "run.h5")]
    assert main(job) == 2
    error = capsys.readouterr().err
    assert "sample 7 cannot be read" in error and error.count("\n") == 1
    assert main([*job, "--on-error", "skip"]) == 0
    assert "1 samples were skipped: sample 7 cannot be read" in capsys.readouterr().err
    with fastconv.open(tmp_path / "run.h5") as run:
        assert run.samples.skipped == [7] and run["0"].stats["count"][0] == 19 * 100
    assert main(job) == 2
    assert "lacks 1 sample" in capsys.readouterr().err


def test_output_cut_short_by_head_is_no_error(run_file):
    command = f"{sys.executable} -m fastconv inspect {run_file} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_doctor_says_what_an_old_gpu_lacks(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = {"is_available": True, "device_count": 2, "get_device_name": "Some GPU"}
    for name, value in found.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: ((7, 5), (9, 0))[i])
    assert doctor._gpu() == [
        (
            "cuda:0",
            "Some GPU, sm_75, CUDA 13.0; older than sm_80: no bfloat16, no Triton kernels, "
            "plain torch instead",
        ),
        ("cuda:1", "Some GPU, sm_90, CUDA 13.0"),
    ]

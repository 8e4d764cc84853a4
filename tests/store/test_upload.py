"""Runs that are put to URLs, once they are whole."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from helpers.networks import images, network

import fastconv
from fastconv.cli.main import main as cli
from fastconv.errors import FileFormatError, FingerprintError, InputError, OutputError
from fastconv.run.recording import Recording
from fastconv.store import lock, write_maps
from fastconv.store.upload import destination, put

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


def test_nothing_is_left_of_a_call_that_is_refused(bucket, scratch):
    model, data = network(), images(4)
    for out, options in (
        ("s3://runs/refused.h5", {"on_error": "?"}),
        ("s3://runs/refused.h5", {"layers": "none"}),
    ):
        with pytest.raises(InputError):
            fastconv.extract(model, data, out, **(OPTIONS | options))
    with pytest.raises(OutputError, match="exists already"):
        fastconv.merge([], "s3://runs/run-2.0.h5")
    with pytest.raises(FileFormatError, match="there is no file"):
        fastconv.merge(["none.h5"], "s3://runs/refused.h5")
    assert not scratch.exists() or not any(scratch.iterdir())


def test_a_server_that_does_not_answer_is_said_before_any_work(bucket, scratch, monkeypatch):
    def silent(*args, **options):
        raise TimeoutError("no answer\nfor a minute")

    monkeypatch.setattr(bucket, "exists", silent)
    monkeypatch.setattr(bucket, "info", silent)
    monkeypatch.setattr(Recording, "take", None)
    for call in (
        lambda: fastconv.extract(network(), images(4), "s3://runs/x.h5", **OPTIONS),
        lambda: fastconv.merge(["none.h5"], "s3://runs/x.h5"),
    ):
        with pytest.raises(OutputError, match=r"cannot reach s3://runs/x\.h5: no answer$"):
            call()
    assert not any(scratch.glob("*"))


def test_scratch_that_cannot_be_made_is_said(bucket, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTCONV_SCRATCH", str(tmp_path / "file"))
    for call in (
        lambda: fastconv.extract(network(), images(4), "s3://runs/x.h5", **OPTIONS),
        lambda: fastconv.merge(["a.h5"], "s3://runs/x.h5"),
    ):
        with pytest.raises(OutputError, match="set FASTCONV_SCRATCH to another folder"):
            call()


@pytest.mark.parametrize("hold", [lambda folder: lock.join(folder, "run.h5")[0], lock.enter])
@pytest.mark.parametrize("function", ["open", "fstat"])
def test_a_folder_that_is_removed_while_it_is_entered_is_made_again(
    tmp_path, monkeypatch, hold, function
):
    plain, folder = getattr(os, function), tmp_path / "folder"

    def late(*args):
        monkeypatch.undo()
        shutil.rmtree(folder)
        return plain(*args)

    monkeypatch.setattr(os, function, late)
    held = hold(folder)
    assert len([*folder.iterdir()]) == 1
    lock.release(held)
    with pytest.raises(OutputError, match=rf"there is no folder {tmp_path / 'none'}"):
        hold(tmp_path / "none" / "folder")

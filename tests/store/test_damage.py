"""Damaged and hostile files: a clear error each, never a crash, a hang or a look elsewhere."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import synthetic
from helpers.read_all import read_all

import fastconv
from fastconv.errors import FastconvError, FileFormatError
from fastconv.format.result import LayerResult
from fastconv.store import write_maps
from fastconv.store.writer import write_run

LAYER = "run/layers/conv1"

ARCHIVE = Path(__file__).parents[1] / "archive"


def small_run(path):
    info = synthetic.layer_info("conv1", 3, size=3)
    result, values = synthetic.layer_result(info, k=2, both=True)
    result.samples_max = result.samples_mean = None
    synthetic.with_maps(result, values)
    first = path.with_name("first.h5")
    write_run(first, synthetic.CONFIG, [result])
    with fastconv.open(first) as run:
        result.maps = run["conv1"].maps()  # in compressed chunks, as maps of parts come
        write_run(path, synthetic.CONFIG, [result], samples=synthetic.sample_table())
    first.unlink()
    return path


@pytest.fixture
def victim(tmp_path):
    return small_run(tmp_path / "run.h5")


def read_many(paths):
    """The outcome of each file, read by another process that may take a minute and must live."""
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / "helpers" / "read_all.py"],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = done.stdout.splitlines()
    assert len(outcomes) == len(paths)
    return outcomes


def test_every_truncation_is_noticed(victim):
    whole = victim.read_bytes()
    rng = random.Random(0)
    lengths = {0, 1, 7, 8, 96, 512, 2048, len(whole) - 1}
    lengths |= {rng.randrange(len(whole)) for _ in range(60)}
    paths = []
    for length in sorted(lengths):
        paths.append(victim.with_name(f"cut{length}.h5"))
        paths[-1].write_bytes(whole[:length])
    for outcome in read_many(paths):
        assert outcome.startswith("FileFormatError: ")


def test_flipped_bits_never_crash_the_reader(victim, tmp_path):
    whole, expected = victim.read_bytes(), read_all(victim)
    rng = random.Random(1)
    paths = []
    for i in range(120):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3, 20))):
            # half of them near the start and between the small objects, where the structure is
            end = len(whole) if rng.random() < 0.5 else min(len(whole), 60_000)
            damaged[rng.randrange(end)] ^= 1 << rng.randrange(8)
        paths.append(tmp_path / f"flip{i}.h5")
        paths[-1].write_bytes(damaged)
    outcomes = read_many(paths)
    kinds = {outcome.split(":")[0] for outcome in outcomes if ":" in outcome}
    assert kinds <= {"FileFormatError", "InputError"}
    changed = sum(outcome != expected for outcome in outcomes)
    assert changed > 30


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04" * 99])
def test_what_is_no_hdf5_file_is_said_so(tmp_path, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"x\.h5"):
        fastconv.open(path).layers  # noqa: B018


def test_other_hdf5_files_and_missing_ones_are_said_so(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = np.arange(3)
    for path, message in (
        (tmp_path / "x.h5", "not written by fastconv"),
        (tmp_path / "none.h5", "no file"),
        (tmp_path, "folder"),
    ):
        with pytest.raises(FileFormatError, match=message):
            read_all(path)


def replace(file, name, value):
    del file[name]
    file[name] = value


def shape_lie(file, name, shape, **options):
    dtype = file[name].dtype
    del file[name]
    file.create_dataset(name, shape, dtype, **options)


def info_with(file, **changes):
    (info,) = json.loads(file["run/layers_json"][()])
    replace(file, "run/layers_json", np.bytes_(json.dumps([{**info, **changes}])))


def virtual(file):
    layout = h5py.VirtualLayout((3,), "<f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3,))
    del file[f"{LAYER}/stats/mean"]
    file.create_virtual_dataset(f"{LAYER}/stats/mean", layout)


def external(file):
    del file[f"{LAYER}/stats/mean"]
    file.create_dataset(f"{LAYER}/stats/mean", (3,), "<f8", external=[("/etc/passwd", 0, 24)])


def cycle(file):
    file[f"{LAYER}/stats/again"] = file["run"]


def cyclic_layer(file):
    file["run/layers/again"] = file["run/layers"]


HOSTILE = {
    "newer major version": lambda f: f.attrs.update(fastconv_format_version=np.bytes_("3.0")),
    "version of another kind": lambda f: f.attrs.update(fastconv_format_version=[1, 2]),
    "no version": lambda f: f.attrs.pop("fastconv_format_version"),
    "incomplete": lambda f: f.attrs.pop("complete"),
    "complete is text": lambda f: f.attrs.update(complete=np.bytes_("1")),
    "complete is big": lambda f: f.attrs.update(complete=np.ones(4000, "u1")),
    "no run": lambda f: f.pop("run"),
    "run is data": lambda f: replace(f, "run", 3),
    "run is a soft link": lambda f: (f.move("run", "r"), replace_link(f, "run", "/r")),
    "run is elsewhere": lambda f: replace_link(f, "run", h5py.ExternalLink("other.h5", "/run")),
    "layers dangle": lambda f: replace_link(f, "run/layers", h5py.SoftLink("/nowhere")),
    "a layer is a loop": lambda f: replace_link(f, LAYER, h5py.SoftLink(f"/{LAYER}")),
    "stats elsewhere": lambda f: replace_link(f, f"{LAYER}/stats", h5py.ExternalLink("o.h5", "/")),
    "mean elsewhere": lambda f: replace_link(
        f, f"{LAYER}/stats/mean", h5py.ExternalLink("/etc/passwd", "/x")
    ),
    "a group holds itself": cycle,
    "layers hold themselves": cyclic_layer,
    "virtual data": virtual,
    "external data": external,
    "config is no JSON": lambda f: replace(f, "run/config_json", np.bytes_("{")),
    "config is a list": lambda f: replace(f, "run/config_json", np.bytes_("[1]")),
    "config is deep": lambda f: replace(f, "run/config_json", np.bytes_("[" * 200_000)),
    "config in a heap": lambda f: replace(f, "run/config_json", "{}"),
    "version in a heap": lambda f: f.attrs.update(fastconv_format_version="1.0"),
    "config is a number": lambda f: replace(f, "run/config_json", 5),
    "config is many": lambda f: replace(f, "run/config_json", ["a", "b"]),
    "info is no JSON": lambda f: replace(f, "run/layers_json", np.bytes_("]")),
    "info is null": lambda f: replace(f, "run/layers_json", np.bytes_("null")),
    "another name": lambda f: info_with(f, name="../../etc/passwd"),
    "name is a number": lambda f: info_with(f, name=7),
    "negative channels": lambda f: info_with(f, channels=-3),
    "other channels": lambda f: info_with(f, channels=4),
    "huge channels": lambda f: info_with(f, channels=10**30),
    "sizes are text": lambda f: info_with(f, size="ab"),
    "nine dimensions": lambda f: info_with(f, size=[1] * 9),
    "no such status": lambda f: info_with(f, status="great"),
    "fields are numbers": lambda f: info_with(f, fields=[1, 2]),
    "huge shape": lambda f: shape_lie(f, f"{LAYER}/stats/mean", (2**45,), chunks=(1024,)),
    "huge patches": lambda f: shape_lie(
        f, f"{LAYER}/patches/picture", (2**20, 2**20, 2**20, 3), chunks=(1, 64, 64, 3)
    ),
    "huge counts": lambda f: shape_lie(
        f, f"{LAYER}/histogram/counts", (3, 2**34), chunks=(1, 2**16), compression="gzip"
    ),
    "growing data": lambda f: shape_lie(
        f, f"{LAYER}/stats/mean", (3,), chunks=(2**26,), maxshape=(None,)
    ),
    "wrong length": lambda f: replace(f, f"{LAYER}/stats/mean", np.zeros(4)),
    "wrong rank": lambda f: replace(f, f"{LAYER}/stats/mean", np.zeros((3, 3))),
    "a scalar": lambda f: replace(f, f"{LAYER}/stats/mean", 1.0),
    "empty data": lambda f: replace(f, f"{LAYER}/stats/mean", h5py.Empty("<f8")),
    "text for numbers": lambda f: replace(f, f"{LAYER}/stats/mean", ["a", "b", "c"]),
    "half for double": lambda f: replace(f, f"{LAYER}/stats/mean", np.zeros(3, "<f2")),
    "big-endian": lambda f: replace(f, f"{LAYER}/stats/mean", np.zeros(3, ">f8")),
    "compounds": lambda f: replace(f, f"{LAYER}/stats/mean", np.zeros(3, "f4,i4")),
    "a type for data": lambda f: replace(f, f"{LAYER}/stats/mean", np.dtype("f8")),
    "a group for data": lambda f: (
        f.pop(f"{LAYER}/stats/mean"),
        f.create_group(f"{LAYER}/stats/mean"),
    ),
    "data for a group": lambda f: replace(f, f"{LAYER}/stats", 1),
    "unknown filter": lambda f: shape_lie(
        f, f"{LAYER}/stats/mean", (3,), chunks=(3,), compression="lzf"
    ),
    "edges do not fit": lambda f: replace(f, f"{LAYER}/histogram/edges", np.zeros(7)),
    "keys do not fit": lambda f: replace(f, "run/samples/key", np.zeros(4, "S3")),
    "no sample count": lambda f: f["run/samples"].attrs.pop("count"),
    "maps of no kind": lambda f: f[f"{LAYER}/activations"].attrs.update(storage=np.bytes_("../x")),
    "maps elsewhere": lambda f: f[LAYER].attrs.update(maps_of=np.bytes_("../../../etc/passwd")),
}


def replace_link(file, name, link):
    if name in file:
        del file[name]
    file[name] = link if not isinstance(link, str) else h5py.SoftLink(link)


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(victim, case):
    with h5py.File(victim, "r+") as file:
        HOSTILE[case](file)
    with pytest.raises(FileFormatError, match=r"run\.(h5|maps)") as raised:
        read_all(victim)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


def longer(file, name):
    replace(file, name, np.append(file[name][()], file[name][-1:]))


DESCRIBED = {  # of what format 2 adds
    "outcomes of more samples": lambda f: longer(f, "run/outcomes/label"),
    "outcomes of another type": lambda f: replace(f, "run/outcomes/correct", np.zeros(11)),
    "a missing outcome": lambda f: f["run/outcomes"].pop("confidence"),
    "outcomes are a link": lambda f: replace_link(f, "run/outcomes", "/run/samples"),
    "a column of more samples": lambda f: longer(f, "run/columns/age"),
    "a column of another name": lambda f: f["run/columns/age"].attrs.update(name=np.bytes_("x")),
    "a column without name": lambda f: f["run/columns/age"].attrs.pop("name"),
    "a column of half floats": lambda f: replace(f, "run/columns/age", np.zeros(11, "f2")),
    "classes are numbers": lambda f: replace(f, "run/classes", np.zeros(3)),
    "thumbnails of one colour": lambda f: replace(
        f, "run/thumbnails/picture", np.zeros((3, 9, 9, 1), "u1")
    ),
    "fewer thumbnails": lambda f: replace(f, "run/thumbnails/sample", np.arange(2)),
    "the graph is no JSON": lambda f: replace(f, "run/graph_json", np.bytes_("[")),
    "the graph has no pairs": lambda f: replace(f, "run/graph_json", np.bytes_("[[1, 2, 3]]")),
    "conditions are no list": lambda f: replace(f, "run/conditions_json", np.bytes_("7")),
    "a condition of another name": lambda f: f[f"{LAYER}/conditions/rot%2F15"].attrs.update(
        name=np.bytes_("rot")
    ),
    "a condition is a link": lambda f: replace_link(f, f"{LAYER}/conditions/rot%2F15", f"/{LAYER}"),
    "a layer twice": lambda f: replace(
        f, "run/layers_json", np.bytes_(json.dumps([json.loads(f["run/layers_json"][()])[0]] * 2))
    ),
    "a layer that is not there": lambda f: f["run/layers"].pop("conv1"),
    "no layers": lambda f: f["run"].pop("layers"),
}


@pytest.mark.parametrize("case", DESCRIBED)
def test_hostile_descriptions_are_refused(tmp_path, case):
    for path in ARCHIVE.rglob("run-2.0*/*.h5"):
        (tmp_path / "run.maps").mkdir()
        shutil.copy(path, tmp_path / "run.maps")
    shutil.copy(ARCHIVE / "run-2.0.h5", tmp_path / "run.h5")
    assert read_all(tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        DESCRIBED[case](file)
    with pytest.raises(FileFormatError, match=r"run\.h5") as raised:
        read_all(tmp_path / "run.h5")
    assert "\n" not in str(raised.value)


def test_a_newer_major_version_is_refused_with_the_reason(victim):
    with h5py.File(victim, "r+") as file:
        file.attrs["fastconv_format_version"] = np.bytes_("3.7")
    with pytest.raises(FileFormatError, match=r"version 3\.7.*reads up to 2\.x.*newer fastconv"):
        fastconv.open(victim).layers  # noqa: B018


def test_a_newer_minor_version_with_more_in_it_is_read(victim):
    before = read_all(victim)
    with h5py.File(victim, "r+") as file:
        file.attrs["fastconv_format_version"] = np.bytes_("2.9")
        file[f"{LAYER}/novelty/value"] = np.arange(3)
        file[f"{LAYER}/stats/kurtosis"] = np.arange(3.0)
    assert read_all(victim) != before


def test_a_changed_value_is_seen_by_its_checksum(victim):
    with fastconv.open(victim) as run:
        assert run.damaged() == []
    with h5py.File(victim, "r+") as file:
        file[f"{LAYER}/topk/position"][0, 0, 0] += 1
    with fastconv.open(victim) as run:
        assert run.damaged() == [f"/{LAYER}/topk/position"]


def flip_in_the_file(path, dataset):
    """Flip one bit in the middle of the second chunk, as a disk might."""
    with h5py.File(path) as file:
        chunk = file[dataset].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 4
    path.write_bytes(content)


def drop_filter_mask(path, dataset):
    """Say that a chunk was not shuffled."""
    with h5py.File(path, "r+") as file:
        data = file[dataset].id.read_direct_chunk((0, 0, 0, 0))[1]
        file[dataset].id.write_direct_chunk((0, 0, 0, 0), data + b"0", 1)


def rewrite(path, dataset):
    """Change one value as any program would."""
    with h5py.File(path, "r+") as file:
        file[dataset][5, 2, 1, 1] += 1


@pytest.mark.parametrize("change", [flip_in_the_file, drop_filter_mask, rewrite])
@pytest.mark.parametrize("limit", [0, 2**30], ids=["beside", "inside"])
def test_a_changed_map_is_seen_by_the_checksum_of_its_chunks(tmp_path, monkeypatch, change, limit):
    monkeypatch.setattr(write_maps, "INSIDE", limit)
    result, values = synthetic.layer_result(synthetic.layer_info("conv1", 3, size=150), samples=23)
    synthetic.with_maps(result, values)
    write_run(tmp_path / "first.h5", synthetic.CONFIG, [result])
    path, maps_file = tmp_path / "run.h5", tmp_path / "run.maps" / "conv1.h5"
    with fastconv.open(tmp_path / "first.h5") as first:
        again = LayerResult(first["conv1"].info, None, maps=first["conv1"].maps())
        write_run(path, synthetic.CONFIG, [again])  # as of parts and shards: chunks are copied
    held, name = path if limit else maps_file, f"{LAYER}/activations/activation"
    with h5py.File(held) as file:
        assert set(file[name].attrs) >= {"chunks_crc32"} and "crc32" not in file[name].attrs
    with fastconv.open(path) as run:
        assert run.damaged() == []
    change(held, name)
    with fastconv.open(path) as run:
        assert run.damaged() == [f"/{name}"]


def test_only_errors_of_the_project_are_raised_when_a_file_is_closed(victim):
    run = fastconv.open(victim)
    layer = run["conv1"]
    run.close()
    with pytest.raises(FastconvError):
        layer.stats  # noqa: B018

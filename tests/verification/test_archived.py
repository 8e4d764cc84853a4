"""Files of earlier versions of the format are verified and merged."""

import pytest
from helpers import archived_run
from helpers.archived_run import ARCHIVE

import fastconv
from fastconv.errors import FileFormatError
from fastconv.run.options import Options

VERSIONS = sorted(
    path.stem.removeprefix("extracted-")
    for path in ARCHIVE.glob("extracted-*.h5")
    if "shard" not in path.stem
)


def test_the_first_version_is_among_them():
    assert "1.0" in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_is_verified(version):
    path = ARCHIVE / f"extracted-{version}.h5"
    report = fastconv.verify(path, archived_run.model(), archived_run.data())
    assert report.ok, str(report)
    changed = archived_run.data()
    changed[4, 0, 3, 3] += 1
    assert not fastconv.verify(path, archived_run.model(), changed).ok


@pytest.mark.parametrize("version", VERSIONS)
def test_shards_are_merged(version, tmp_path):
    shards = [ARCHIVE / f"extracted-{version}-shard-{i}.h5" for i in (1, 0)]
    with (
        fastconv.merge(shards, tmp_path / "run.h5") as merged,
        fastconv.open(ARCHIVE / f"extracted-{version}.h5") as whole,
    ):
        for name in whole.layers:
            for field in ("values", "sample", "position", "box"):
                a, b = (getattr(run[name].topk, field) for run in (merged, whole))
                assert (a == b).all()
            for field in ("count", "mean", "var", "min", "max"):
                assert (merged[name].stats[field] == whole[name].stats[field]).all()
            assert (merged[name].map(9) == whole[name].map(9)).all()


def test_a_fingerprint_that_lacks_an_option_is_a_format_error():
    with fastconv.open(ARCHIVE / "extracted-1.0.h5") as run:
        stored = run.config["fingerprint"]
    assert Options.from_stored(stored, 12).topk == 2
    del stored["stage"]
    with pytest.raises(FileFormatError, match="stage"):
        Options.from_stored(stored, 12)

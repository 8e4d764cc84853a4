"""Keep a file of the format as it is: `PYTHONPATH=tests python tests/helpers/make_archive.py`.

Run it before a release that has a new format version; the tests read what it leaves in
`tests/archive` for ever.
"""

from pathlib import Path

from fastconv.store import schema, write_maps
from fastconv.store.writer import write_run
from helpers import synthetic


def archive(path):
    """A run of two layers: maps inside, and 8-bit ones beside that a reader must normalise."""
    info = synthetic.layer_info("conv1", 3, size=3)
    first, values = synthetic.layer_result(info, k=2, both=True)
    synthetic.with_maps(first, values)
    long = synthetic.layer_info("a/b#1", 4, rank=1, size=9)
    second, values = synthetic.layer_result(long, both=True)
    synthetic.with_maps(second, values, "uint8")
    second.maps.normalize = "minmax"
    rotated, _ = synthetic.layer_result(info, k=2, seed=1, both=True)
    rotated.weight = None
    first.conditions["rot/15"] = rotated
    write_maps.INSIDE = 4 * 6 * 3 * 3 * 3  # bytes: those of conv1
    write_run(
        path,
        {**synthetic.CONFIG, "fingerprint": {"order": "both"}},
        [first, second],
        samples=synthetic.described_samples(),
        graph=[("conv1", "a/b#1")],
    )


if __name__ == "__main__":
    folder = Path(__file__).parents[1] / "archive"
    archive(folder / f"run-{schema.FORMAT_VERSION}.h5")

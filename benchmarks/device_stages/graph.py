"""Does a CUDA graph pay? Whole extractions with and without one, for several batch sizes."""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from device_stages.common import Suite, spread
from fastconv.run import gpu_cost

BATCHES = (1, 2, 8, 32, 128)
GAIN = 1.05  # at least, to be used


def run(suite: Suite) -> None:
    for batch in (2,) if suite.smoke else BATCHES:
        suite.check(f"batch of {batch}", partial(compare, suite, batch))
    suite.check("table", partial(keep, suite))


def compare(suite: Suite, batch: int) -> str | None:
    """Extract with and without; the datasets must have the same bytes."""
    import models

    from fastconv.run import plan as planner
    from fastconv.run import recorder

    torch.manual_seed(0)
    model = models.resnet18().eval()
    data = torch.randn(6, 3, 32, 32) if suite.smoke else torch.randn(24 * batch + 1, 3, 224, 224)
    data = data[: 1 if suite.smoke else 513]
    times: dict[str, list[float]] = {"plain": [], "graph": []}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for turn in range(1 if suite.smoke else 4):
                for name in times:
                    use = name == "graph" and not suite.smoke
                    recorder.replays = lambda options, place, use=use: use
                    path = Path(folder) / f"{name}.h5"
                    began = time.perf_counter()
                    extract(model, data, path, batch, suite.device)
                    if turn or suite.smoke:  # the first warms up
                        times[name].append(time.perf_counter() - began)
            different = differences(Path(folder))
    finally:
        recorder.replays = planner.replays
    found = {name: spread(values) for name, values in times.items()}
    suite.result[str(batch)] = {"seconds": found, "the same bytes": not different}
    return f"{different} differ" if different else None


def extract(model, data, path: Path, batch: int, device: torch.device) -> None:
    import fastconv

    options = {"batch_size": batch, "device": device, "progress": False, "overwrite": True}
    fastconv.extract(model, data, path, **options).close()


def differences(folder: Path) -> list[str]:
    """Names of the data sets of two files that differ."""
    import h5py

    found: list[dict[str, object]] = []
    for name in ("plain", "graph"):
        values: dict[str, object] = {}
        with h5py.File(folder / f"{name}.h5") as file:
            file.visititems(
                lambda key, item, values=values: (
                    values.update({key: bytes_of(item)}) if isinstance(item, h5py.Dataset) else None
                )
            )
        found.append(values)
    plain, graph = found
    return [key for key in plain if key != "run/config_json" and plain[key] != graph.get(key)]


def bytes_of(item) -> bytes:
    value = item[()]
    return value if isinstance(value, bytes) else value.tobytes()


def keep(suite: Suite) -> None:
    """Up to which batch size, without a gap, the graph was faster, with the same bytes."""
    largest = 0
    for batch, found in suite.result.items():
        medians = [found["seconds"][name]["median"] for name in ("plain", "graph")]
        if not found["the same bytes"] or medians[0] < GAIN * medians[1]:
            break
        largest = int(batch)
    suite.result["up_to_batch"] = largest
    if largest and not suite.smoke:
        name = gpu_cost.file_of(torch.cuda.get_device_name()).with_suffix(".graph.json")
        suite.out.mkdir(parents=True, exist_ok=True)
        (suite.out / name.name).write_text(json.dumps({"up_to_batch": largest}) + "\n")
        print(f"keep {suite.out / name.name} as {name}")

"""The report of a large run in a browser: bytes, time to the first picture, memory of the tab.

    python benchmarks/bench_report.py [--layers 50] [--filters 2048] [--page report.html]

The run is made up, with patches cut from photographs. "First picture": from the start of the
navigation to the first picture drawn. Memory: the proportional set size of the page's process,
after the network, after scrolling through the filters of a layer, after sorting all filters of all
layers, and after opening twenty filters; then what the page still holds once the browser has
collected its garbage, which it does when it likes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from results import save

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from helpers import browser, synthetic

import fastconv
from fastconv.format.result import LayerResult
from fastconv.store.writer import write_run

SMOKE = os.environ.get("FASTCONV_BENCH_SMOKE") == "1"
SIDE = 32  # of a patch
FIRST_PICTURE = """
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (...given) {
    window.firstPicture ??= performance.now();
    return draw.apply(this, given);
  };
"""


def results(layers: int, filters: int) -> Iterator[LayerResult]:
    """Layers that repeat one another but for their names and patches."""
    rng = np.random.default_rng(0)
    made, _ = synthetic.layer_result(synthetic.layer_info("", filters), k=9)
    patches = crops(filters * 9, rng).reshape(filters, 9, SIDE, SIDE, 3)
    for number in range(layers):
        info = synthetic.layer_info(f"stage{number // 10}.conv{number}", filters)
        yield replace(made, info=info, patches=np.roll(patches, number, axis=0), patch_plan=None)


def crops(count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, SIDE, SIDE, 3] uint8 out of a photograph."""
    from skimage import data

    photo = data.astronaut()
    ys, xs = (rng.integers(0, n - SIDE, count) for n in photo.shape[:2])
    windows = np.lib.stride_tricks.sliding_window_view(photo, (SIDE, SIDE), axis=(0, 1))
    return np.moveaxis(windows[ys, xs], 1, -1)


def memory(page) -> float:
    """Megabytes of the page's process."""
    session = page.context.browser.new_browser_cdp_session()
    found = session.send("SystemInfo.getProcessInfo")["processInfo"]
    sizes = []
    for process in found:
        if process["type"] == "renderer":
            text = Path(f"/proc/{process['id']}/smaps_rollup").read_text()
            line = next(line for line in text.splitlines() if line.startswith("Pss:"))
            sizes.append(int(line.split()[1]) / 1e3)
    return max(sizes)


def measure(path: Path, layer: str, filters: int) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    found: dict[str, float] = {}
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=browser.chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        page = started.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(120_000)
        page.add_init_script(FIRST_PICTURE)
        page.goto(path.as_uri(), wait_until="commit")
        page.wait_for_selector(".strip .thumb canvas")
        found["first picture, ms"] = page.evaluate("firstPicture")
        page.wait_for_load_state("load")
        found["loaded, ms"] = page.evaluate(
            "performance.getEntriesByType('navigation')[0].loadEventEnd"
        )
        found["network, MB"] = memory(page)
        page.goto(f"{path.as_uri()}#/filters?layer={layer}")
        page.wait_for_selector(".cards .card canvas")
        for step in range(60):
            page.evaluate(f"scrollTo(0, document.documentElement.scrollHeight * {step} / 60)")
            page.wait_for_timeout(30)
        found["a layer scrolled, MB"] = memory(page)
        began = time.perf_counter()
        page.goto(f"{path.as_uri()}#/filters?sort=max")
        page.wait_for_selector("h1:has-text('All layers')")
        page.wait_for_selector(".cards .card canvas")
        found["all filters sorted, ms"] = 1e3 * (time.perf_counter() - began)
        found["all filters, MB"] = memory(page)
        for number in range(0, filters, max(1, filters // 20)):
            page.goto(f"{path.as_uri()}#/filter/{layer}/{number}")
            page.wait_for_selector(f"h1:text-is('Filter {number}')")
            page.wait_for_selector(".nearest canvas")
        found["twenty filters, MB"] = memory(page)
        page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
        page.wait_for_timeout(500)
        found["after collection, MB"] = memory(page)
        started.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=3 if SMOKE else 50)
    parser.add_argument("--filters", type=int, default=96 if SMOKE else 2048)
    parser.add_argument("--page", type=Path, help="keep the page here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_file = Path(folder) / "run.h5"
        made = results(given.layers, given.filters)
        write_run(run_file, synthetic.CONFIG, made, samples=synthetic.sample_table())
        page = given.page or Path(folder) / "report.html"
        began = time.perf_counter()
        fastconv.report(run_file, page)
        found = {
            "layers": given.layers,
            "filters of each": given.filters,
            "run, MB": run_file.stat().st_size / 1e6,
            "page, MB": page.stat().st_size / 1e6,
            "made in, s": time.perf_counter() - began,
        }
        if browser.chromium():
            layer = f"stage0.conv{min(3, given.layers - 1)}"
            found |= measure(page.resolve(), layer, given.filters)
    for name, value in found.items():
        print(f"{name:24} {value:10,.1f}")
    save("report", found)


if __name__ == "__main__":
    main()

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import browser, synthetic
from helpers.insight_tables import stand_in
from helpers.report_runs import plain_layers, write

from fastconv.store.reader import Run
from fastconv.store.writer import write_run


@pytest.fixture(scope="session")
def axe(request):
    """The source of axe-core, which finds what a screen reader cannot use."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    folder = request.config.cache.mkdir("axe")
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        command = ["npm", "install", "--no-audit", "--no-fund", "axe-core@4.10.3"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"axe-core cannot be installed: {done.stderr.strip()[-200:]}")
    return script.read_text()


@pytest.fixture(scope="session")
def chromium():
    """A browser that pages are opened in."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not browser.chromium():
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=browser.chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def run_file(tmp_path):
    """A run of 2-D, 1-D, 3-D layers and one without positions."""
    return write(tmp_path / "run.h5", plain_layers(), both=True)


@pytest.fixture
def bare_file(tmp_path):
    """A run of which nothing but the weights was kept."""
    result, _ = synthetic.layer_result(synthetic.layer_info("conv1", 5))
    result.stats, result.histogram, result.topk, result.patches = {}, None, {}, None
    write_run(tmp_path / "bare.h5", synthetic.CONFIG, [result])
    return tmp_path / "bare.h5"


# imported once: a package that is imported anew has lost the modules in it
INSIGHT = (
    importlib.import_module("fastconv.insight") if importlib.util.find_spec("pandas") else None
)


@pytest.fixture(autouse=True)
def no_insight(monkeypatch):
    """As where the extra is not installed; the same tables on every machine else."""
    monkeypatch.setitem(sys.modules, "fastconv.insight", None)


@pytest.fixture
def installed_insight(monkeypatch, no_insight):
    """The tables as they are."""
    pytest.importorskip("pandas")
    monkeypatch.setitem(sys.modules, "fastconv.insight", INSIGHT)


@pytest.fixture
def insight(monkeypatch, no_insight):
    """Tables, outcomes and whole pictures for any run."""
    monkeypatch.setitem(sys.modules, "fastconv.insight", stand_in())

    def outcomes(run):
        label = run.samples.labels
        correct = np.arange(len(label)) % 4 > 0
        guess = np.where(correct, label, (label + 1) % 3)
        return {
            "label": label,
            "prediction": guess,
            "confidence": np.full(len(label), 0.75, np.float32),
            "correct": correct,
        }

    def thumbnail(run, sample):
        return np.random.default_rng(sample).integers(0, 256, (7, 7, 3), np.uint8)

    monkeypatch.setattr(Run, "outcomes", property(outcomes), raising=False)
    monkeypatch.setattr(Run, "thumbnail", thumbnail, raising=False)

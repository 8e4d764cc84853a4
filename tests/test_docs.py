"""The documentation builds without a warning, and what it tells people to run runs."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Text(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.text, self.links = "", []
        self.feed(page.read_text())

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found.get("src")] if tag in ("script", "img") else []
        if tag == "link" and found.get("rel") == "stylesheet":
            self.links.append(found["href"])


def test_the_reference_is_that_of_the_code(site):
    python = Text(site / "reference" / "python" / "index.html").text
    assert "Measure every filter of the chosen layers over a data set" in python
    assert all(name in python for name in ("hits_per_sample", "quantile", "FingerprintError"))
    command = Text(site / "reference" / "cli" / "index.html").text
    assert "usage: fastconv extract [-h]" in command and "--hits-per-sample N" in command


def test_pages_load_nothing_from_elsewhere(site):
    links = {link for page in site.rglob("index.html") for link in Text(page).links if link}
    assert links and not [link for link in links if re.match(r"(https?:)?//", link)]


@pytest.mark.parametrize("page", ["getting-started.md", "howto/audio.md"])
def test_examples_of_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)

"""h5web in headless Chromium: open a file, wait until it is drawn, take a picture."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image

SOURCE = Path(__file__).parents[1] / "store" / "h5web"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --use-angle=swiftshader --enable-unsafe-swiftshader"
    " --disable-quic --no-first-run --disable-background-networking --disable-component-update"
    " --disable-sync --hide-scrollbars --window-size=1600,1100"
)


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def build_page(cache: Path) -> Path:
    """The folder of the built page; npm installs and bundles once per version of its sources."""
    sources = sorted(path for path in SOURCE.iterdir() if path.is_file())
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = cache / key
    if (folder / "page.js").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for path in sources:
        shutil.copy(path, folder)
    for command in (["npm", "install", "--no-audit", "--no-fund"], ["npm", "run", "build"]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return folder


def photograph(page: Path, file: Path, path: str = "/") -> np.ndarray:
    """Open `path` of an HDF5 file in h5web; [H, W, 3] uint8 once a plot has been drawn."""
    drawn = threading.Event()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/until-drawn":  # holds back the page's load event
                drawn.wait(60)
                self.send_error(404)
            elif self.path == "/drawn":
                drawn.set()
                self.send_error(404)
            elif self.path == "/run.h5":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(file.read_bytes())
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(page)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    query = urlencode({"file": "run.h5", "path": path})
    url = f"http://127.0.0.1:{server.server_port}/index.html?{query}"
    try:
        with tempfile.TemporaryDirectory() as profile:
            shot = Path(profile) / "shot.png"
            options = [f"--user-data-dir={profile}", f"--screenshot={shot}"]
            command = [chromium(), *FLAGS.split(), *options, url]
            subprocess.run(command, capture_output=True, timeout=120, check=True)
            if not drawn.is_set():
                raise RuntimeError("h5web drew nothing within a minute")
            return np.asarray(Image.open(io.BytesIO(shot.read_bytes())).convert("RGB"))
    finally:
        server.shutdown()
        server.server_close()

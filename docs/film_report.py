"""Film the report of the photos demo in Chromium: docs/images/report.webp.

fastconv demo photos --out demo && python docs/film_report.py demo/photos.html
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "images" / "report.webp"
SIZE, SHOWN = {"width": 1280, "height": 800}, (960, 600)
SECONDS = 1.8
SCENES = (  # address, how far down, colours
    ("", 0, "light"),
    ("filters?layer=conv4&sort=class_auroc", 0, "light"),
    ("filters?layer=conv4&sort=class_auroc", 560, "light"),
    ("filter/conv4/30", 0, "light"),
    ("filter/conv4/30", 900, "light"),
    ("filter/conv1/7", 0, "dark"),
    ("class/3", 0, "dark"),
    ("embedding", 0, "dark"),
)


def main() -> None:
    report = Path(sys.argv[1]).resolve().as_uri()
    frames = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SIZE)
        for address, top, scheme in SCENES:
            page.emulate_media(color_scheme=scheme)
            page.goto(f"{report}#/{address}")
            page.wait_for_timeout(1200)
            page.evaluate(f"scrollTo(0, {top})")
            page.wait_for_timeout(600)
            if address == "embedding":
                page.locator(".key button").nth(4).click()
                page.wait_for_timeout(800)
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            frames.append(shot.resize(SHOWN, Image.Resampling.LANCZOS))
        browser.close()
    milliseconds = int(1000 * SECONDS)
    first, *rest = frames
    options = {"quality": 70, "method": 6}
    first.save(OUT, save_all=True, append_images=rest, duration=milliseconds, loop=0, **options)
    print(f"wrote {OUT} ({OUT.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()

"""Draw the pictures of docs/guides/browse.md again: pages of `patchmine serve` in Chromium.

    python -m docs.figures.browser [-i INDEX]

The photographs are parts of those of scikit-image that are free of rights. INDEX is where their index is kept between
two runs; by default it is built anew, which takes a minute or two.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import patchmine
from docs.figures.samples import save
from tests.support.tutorials import small_imagenet

UNIT = "blocks.4:50"
SIZE = {"width": 1280, "height": 800}


def built(folder: Path) -> Path:
    """An index of parts of free photographs, with the tight crops of one unit."""
    small_imagenet(folder / "photographs")
    directory = folder / "photographs.patchmine"
    patchmine.build_index(folder / "photographs", directory)
    index = patchmine.open_index(directory)
    for _ in index.tighten([UNIT], k=25):
        pass
    return directory


def draw(browser: Any, address: str, folder: Path) -> None:
    context = browser.new_context(viewport=SIZE, device_scale_factor=1.5)
    page = context.new_page()
    for name, path in (("layer", "layers/blocks.4?sort=max"), ("unit", f"units/{UNIT}")):
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=folder / f"{name}.png")
    page.click(".tile >> nth=0")
    page.wait_for_load_state("networkidle")
    page.click("text=Patches like this one")
    page.wait_for_selector(".like img")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=folder / "photograph.png")
    for name in ("layer", "unit", "photograph"):
        save(folder / f"{name}.png", f"browse-{name}.jpg", width=1280)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--index", type=Path, help="the index of an earlier run")
    given = parser.parse_args().index
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        directory = given or built(Path(folder))
        command = [sys.executable, "-m", "patchmine", "serve", "-i", directory.name, "--port", "0"]
        serving = subprocess.Popen(command, cwd=directory.parent, stdout=subprocess.PIPE, text=True)
        assert serving.stdout is not None
        try:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            draw(browser, serving.stdout.readline().strip(), Path(folder))
        finally:
            serving.terminate()
            serving.wait(30)


if __name__ == "__main__":
    main()

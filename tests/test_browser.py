"""The pages in a real browser: found, opened, switched, dropped, dragged, walked by keyboard; no error, no other host.

Needs Chromium (Debian's chromium, or CHROMIUM in the environment) and playwright, and is skipped without.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

import patchmine

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine: the pages are not tested in a browser", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra 'dev'")
pytest.importorskip("starlette", reason="needs the extra 'web'")

# As root, and without asking its maker's hosts for anything.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()


@pytest.fixture(scope="module")
def index(shapes_index_dir, tmp_path_factory):
    """A copy of the index with a name to look for."""
    folder = shutil.copytree(shapes_index_dir, tmp_path_factory.mktemp("browsed") / "shapes.patchmine")
    program = "from patchmine.cli import main; main()"
    named = [sys.executable, "-c", program, "name", "colour:1", "goldfish_1", "-i", str(folder)]
    subprocess.run(named, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def address(index):
    command = [sys.executable, "-m", "patchmine", "serve", "-i", str(index), "--port", "0", "--compute"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    yield running.stdout.readline().strip()
    assert running.poll() is None
    running.terminate()
    running.wait(timeout=60)
    running.stdout.close()


@pytest.fixture
def page(browser, address):
    """A page that fails the test for an error, or a request to another host."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    found = context.new_page()
    problems = []
    found.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: problems.append(str(error)))
    hosts = set()
    found.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    found.set_default_timeout(20_000)
    yield found
    context.close()
    assert problems == []
    assert hosts <= {urlsplit(address).netloc, ""}


@pytest.fixture
def drop(tmp_path, shapes_index):
    file = tmp_path / "mine.png"
    file.write_bytes(shapes_index.photograph(7))
    return file


def until(page, holds):
    """Wait until an expression holds. Playwright's own way evaluates text in the page, which the pages forbid."""
    for _ in range(200):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(50)
    pytest.fail(holds)


def test_search_leads_to_a_unit_and_its_patches(page, address):
    page.goto(address)
    page.keyboard.press("/")
    page.keyboard.type("fish")
    page.wait_for_selector("#found li[aria-selected=true]")
    page.keyboard.press("Enter")
    page.wait_for_url("**/units/colour:1")
    assert page.inner_text("h1") == "goldfish_1"
    page.click(".tile >> nth=1")
    assert page.url.endswith("#patch-2")
    until(page, "document.querySelector('#viewer-image').naturalWidth > 0")
    assert page.locator("#viewer-boxes rect.receptive").count() == 1
    page.check("text=activation map")
    page.wait_for_selector("#viewer-map:not([hidden])")
    page.keyboard.press("ArrowRight")
    assert page.url.endswith("#patch-3")
    page.keyboard.press("Escape")
    until(page, "!location.hash")
    page.goto(f"{address}units/colour:1#patch-2")
    assert page.locator("#viewer").is_visible()


def test_crop_and_pick_are_switched_in_place_and_have_an_address(page, address):
    page.goto(f"{address}units/colour:0")
    first = page.get_attribute(".tile >> nth=0", "data-patch")
    page.click("text=weakest")
    page.wait_for_url("**pick=bottom**")
    until(page, f"document.querySelector('.tile').dataset.patch !== {json.dumps(first)}")
    page.click("text=whole input")
    page.wait_for_url("**pick=bottom&crop=image")
    assert "--pick bottom --crop image" in page.inner_text("#command")
    page.go_back()
    page.wait_for_url("**crop=auto")
    page.goto(f"{address}units/colour:0?pick=random&crop=image")
    assert page.inner_text("nav[aria-label=Pick] [aria-current]") == "random"


def test_a_dropped_photograph_shows_which_units_fire_where(page, address, drop, index):
    page.goto(address)
    page.set_input_files("#file", drop)
    page.wait_for_selector(".fires a")
    page.hover(".fires li >> nth=0")
    assert page.locator("#viewer-boxes rect.hit").count() == 1
    name = page.inner_text(".fires a span >> nth=0")
    assert name == patchmine.open_index(index).fires(drop, k=1).units[0].unit.name
    frame = page.locator("#viewer-boxes").bounding_box()
    page.mouse.move(frame["x"] + frame["width"] * 0.4, frame["y"] + frame["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.6, frame["y"] + frame["height"] * 0.7, steps=4)
    page.mouse.up()
    page.wait_for_selector(".like img")
    until(page, "[...document.querySelectorAll('.like img')].every(image => image.naturalWidth > 0)")


def test_a_question_about_a_photograph_can_be_stopped(page, address, drop):
    page.goto(address)
    page.route("**/api/fires**", lambda route: None)  # never answered
    page.set_input_files("#file", drop)
    page.wait_for_selector("#viewer-answer progress")
    page.click("#viewer-answer button")
    page.wait_for_selector("text=Stopped.")
    page.unroute("**/api/fires**")
    page.select_option("#viewer select", "colour")
    page.wait_for_selector(".fires a")


def test_the_pages_are_walked_by_keyboard(page, address):
    page.goto(f"{address}layers/colour")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('href')").endswith("colour:1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/units/colour:1")
    page.keyboard.press("]")
    page.wait_for_url("**/units/colour:2")
    page.keyboard.press("[")
    page.wait_for_url("**/units/colour:1")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()


def test_the_wall_is_sorted_and_filtered_and_its_address_says_so(page, address, index):
    page.goto(f"{address}layers/colour")
    units = patchmine.open_index(index).units("colour")
    page.select_option("#sort", "max")
    best = max(units, key=lambda unit: unit.statistics.maximum)
    assert page.get_attribute(".card >> nth=0", "href").endswith(str(best.unit))
    page.fill("#least", "1000")
    assert page.inner_text("#count") == "1"
    assert page.url.endswith("?sort=max&least=1000")
    page.reload()
    assert page.inner_text("#count") == "1"


def test_long_work_runs_in_the_page_and_is_kept(page, address):
    page.goto(f"{address}units/colour:3")
    assert page.locator(".synthetic").count() == 0
    page.click("text=Synthetic image")
    page.wait_for_selector(".job progress")
    page.wait_for_selector("img.synthetic", timeout=60_000)


@pytest.mark.parametrize("width", [1440, 800, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_its_screen(page, address, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("", "layers/template", "units/template:1"):
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_a_site_opens_from_the_file_system(browser, shapes_index_dir, tmp_path, monkeypatch):
    from patchmine.web.site import chosen, export

    monkeypatch.setattr("patchmine.web.site.K", 2)  # drawn photographs are drawn anew for each picture
    opened = patchmine.open_index(shapes_index_dir)
    export(opened, tmp_path / "site", chosen(opened, [], ["colour:0", "colour:1"]))
    context = browser.new_context()
    page = context.new_page()
    problems = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((tmp_path / "site/index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("colour:1")
    page.wait_for_selector("#found li[aria-selected=true]")
    page.keyboard.press("Enter")
    page.wait_for_url("**/units/colour/1.html")
    page.click(".tile >> nth=0")
    until(page, "document.querySelector('#viewer-image').naturalWidth > 0")
    assert re.search(r"#1 · ", page.inner_text("#viewer-title"))
    page.keyboard.press("Escape")
    page.keyboard.press("[")
    page.wait_for_url("**/units/colour/0.html")
    assert problems == []
    context.close()

"""What `patchmine serve` bears: first answers, crops per second, and many clients at once, on loopback.

    python -m scripts.bench.web -i INDEX [--large 50000] [--clients 50] [--seconds 60]

INDEX is a finished index whose photographs are still there; one of `large` photographs is written like it, into a
temporary folder, as `scripts.bench.query` does (0 serves INDEX itself). Prints the seconds for the first wall of the
largest layer, its strips and the first page of a unit; where there is Chromium, when it paints a wall and three units;
crops per second by one client, none of them made before; and then, with all clients at once on pages, pictures and the
API: answers per second, median and 95th percentile in milliseconds, errors, and the server's memory at each sixth of
the time.
"""

from __future__ import annotations

import http.client
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import perf_counter, sleep
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import psutil

from patchmine.index import Index, open_index
from patchmine.web.pictures import BLOCK
from scripts.bench.measuring import command_line
from scripts.bench.query import write_like

if TYPE_CHECKING:
    from playwright.sync_api import Browser


class Client:
    """One browser: a connection that stays open."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)

    def seconds(self, path: str) -> tuple[float, int]:
        """The seconds of a request and its status."""
        began = perf_counter()
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        answer.read()
        return perf_counter() - began, answer.status


@contextmanager
def served(index: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of a server of the index."""
    command = [sys.executable, "-m", "patchmine", "serve", "-i", str(index), "--port", "0"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert running.stdout is not None
    try:
        yield running.stdout.readline().strip(), psutil.Process(running.pid)
    finally:
        running.terminate()
        running.wait(30)


def crops(index: Index, layer: str, count: int, seed: int) -> list[str]:
    """Addresses of crops, at places drawn at random."""
    draw = random.Random(seed)
    height, width = index.field(layer).grid
    return [
        f"/crops/{quote(layer)}/{draw.randrange(index.layers[layer])}/auto/{draw.randrange(len(index))}"
        f"/{draw.randrange(height)}/{draw.randrange(width)}/192"
        for _ in range(count)
    ]


def paths(index: Index, layer: str, seed: int) -> Iterator[str]:
    """What a client asks for, without end."""
    draw = random.Random(seed)
    while True:
        unit = f"{quote(layer)}:{draw.randrange(index.layers[layer])}"
        yield f"/units/{unit}"
        yield from crops(index, layer, 8, draw.randrange(1 << 30))
        yield f"/strips/{quote(layer)}/{draw.randrange(index.layers[layer] // BLOCK)}.jpg"
        yield f"/api/units/{unit}/top?k=25"
        yield f"/photographs/{draw.randrange(len(index))}.jpg"


def crowd(address: str, index: Index, layer: str, clients: int, seconds: float) -> None:
    """All clients at once; prints what they met."""
    stop = Event()

    def one(number: int) -> list[tuple[float, int]]:
        client = Client(address)
        met: list[tuple[float, int]] = []
        for path in paths(index, layer, number):
            if stop.is_set():
                return met
            met.append(client.seconds(path))
        return met

    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(one, number) for number in range(clients)]
        sleep(seconds)
        stop.set()
        met = sorted(pair for future in asked for pair in future.result())
    times = [took for took, _ in met]
    errors = sum(status != 200 for _, status in met)
    middle, most = (1000 * times[int(share * len(met))] for share in (0.5, 0.95))
    rate = len(met) / seconds
    print(f"{rate:.0f} answers/s, median {middle:.0f} ms, 95th percentile {most:.0f} ms, {errors} errors")


def paint(address: str, paths: list[str]) -> None:
    """Print when a page is first painted, each in a browser without a cache; nothing without Chromium."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("no Chromium: first paints are not measured")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for path in paths:
            painted, requests = first_paint(browser, address.rstrip("/") + path)
            print(f"{path}: first paint after {painted:.2f} s, {requests} requests")


def first_paint(browser: Browser, address: str) -> tuple[float, int]:
    """The seconds until a page is first painted, in a browser without a cache, and its requests until it is at rest."""
    requests: list[str] = []
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_load_state("networkidle")
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    context.close()
    return painted / 1000, len(requests)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("-i", "--index", type=Path, required=True)
    parser.add_argument("--large", type=int, default=50_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = given.index
        if given.large:
            directory = Path(folder) / "large.patchmine"
            real = open_index(given.index)
            write_like(real, directory, given.large, list(real.layers), True)
        index = open_index(directory)
        layer = max(index.layers, key=lambda name: index.layers[name])
        with served(directory) as (address, process):
            client = Client(address)
            for path in (f"/layers/{quote(layer)}", f"/strips/{quote(layer)}/0.jpg", f"/units/{quote(layer)}:7"):
                print(f"first {path}: {client.seconds(path)[0]:.2f} s")
            units = [f"/units/{quote(layer)}:{channel}" for channel in (100, 200, 300)]
            paint(address, [f"/layers/{quote(layer)}", *units])
            client = Client(address)  # the other connection has been idle for too long
            took = [client.seconds(path)[0] for path in crops(index, layer, 400, 1)]
            print(f"crops by one client: {len(took) / sum(took):.0f}/s")
            with ThreadPoolExecutor(1) as pool:
                crowded = pool.submit(crowd, address, index, layer, given.clients, given.seconds)
                for _ in range(6):
                    sleep(given.seconds / 6)
                    print(f"memory {process.memory_info().rss / 1e6:.0f} MB")
                crowded.result()


if __name__ == "__main__":
    main()

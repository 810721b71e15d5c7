"""`patchmine serve`: the API has the shapes of --json, pictures have tags, and nothing but the index is shown."""

import asyncio
import html
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import patchmine
from patchmine.defaults import Wanted
from patchmine.errors import PatchmineError, PhotographError
from patchmine.kept import findings
from patchmine.photographs.crops import piece
from patchmine.photographs.placement import Preprocessing, View
from patchmine.units import Box, Unit
from tests.conftest import jpeg
from tests.support import tampering
from tests.support.asgi import ask, sent
from tests.support.commands import failed

pytest.importorskip("starlette", reason="needs the extra 'web'")

from patchmine.web.live.app import Application
from patchmine.web.live.asking import Asking
from patchmine.web.live.current import Current
from patchmine.web.live.guard import HEADERS

UNIT = "colour:0"


@pytest.fixture(scope="module")
def app(shapes_index_dir):
    return Application(Current(shapes_index_dir))


@pytest.fixture
def own(shapes_index_dir, tmp_path):
    """A copy of the index that a test may change."""
    return shutil.copytree(shapes_index_dir, tmp_path / "own.patchmine")


class Tags(HTMLParser):
    """The scripts' addresses, the handlers of events, and the words of a page as a browser reads it."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.handlers, self.words = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "script":
            self.scripts.append(found.get("src") or "")
        self.handlers += [name for name in found if name.startswith("on")]

    def handle_data(self, data):
        self.words += data


class Waiting:
    async def receive(self):
        await asyncio.Event().wait()


def photograph(size=(64, 64)):
    return jpeg(Image.effect_noise(size, 80).convert("RGB"))


def alike(one, other):
    """Equal but for the rounding of another thread's sums."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == pytest.approx(other, rel=1e-4, abs=1e-5) if isinstance(one, float) else one == other


@pytest.mark.parametrize("path", ["/", "/layers/colour", f"/units/{UNIT}", f"/units/{UNIT}?pick=spectrum&crop=rf"])
def test_each_page_names_what_it_shows_and_allows_no_other_source(app, path):
    answer = ask(app, path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "colour" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")
    assert "style=" not in answer.text
    assert "access-control-allow-origin" not in answer.headers


def test_the_api_answers_with_the_documents_of_the_commands(app, cli, shapes_index_dir):
    def printed(*words):
        return json.loads(cli(*words, "-i", shapes_index_dir, "--json").stdout)

    assert ask(app, "/api/units").json == printed("units")
    assert ask(app, f"/api/units/{UNIT}/top?k=3&pick=bottom").json == printed(
        "top", "--unit", UNIT, "-k", 3, "--pick", "bottom"
    )
    assert ask(app, f"/api/similar?unit={UNIT}&k=4").json == printed("similar", "--unit", UNIT, "-k", 4)
    path = patchmine.open_index(shapes_index_dir).path(5)
    fires, told = ask(app, "/api/fires?image_id=5&k=4").json, printed("fires", path, "-k", 4)
    assert fires.keys() == told.keys()
    assert [list(unit) for unit in fires["units"]] == [list(unit) for unit in told["units"]]
    assert {unit["name"] for unit in fires["units"]} == {unit["name"] for unit in told["units"]}
    asked = ask(app, "/api/similar?image_id=5&box=90,90,150,160&k=4").json
    assert alike(asked, printed("similar", "--image", path, "--box", "90,90,150,160", "-k", 4))


def test_a_photograph_that_is_sent_is_asked_like_a_file(app, cli, shapes_index_dir, tmp_path):
    data = photograph()
    (tmp_path / "mine.jpg").write_bytes(data)
    printed = json.loads(cli("fires", tmp_path / "mine.jpg", "-i", shapes_index_dir, "-k", 5, "--json").stdout)
    sent = ask(app, "/api/fires?k=5", "POST", body=data).json
    assert alike(sent["units"], printed["units"])
    assert sent["image"] == "photograph"
    near = ask(app, "/api/similar?box=4,4,30,30&layer=colour&k=3", "POST", body=data).json
    assert near["query"]["box"] == {"left": 4, "top": 4, "right": 30, "bottom": 30}
    assert len(near["patches"]) == 3


@pytest.mark.parametrize(
    ("path", "method", "body", "status", "word"),
    [
        ("/api/units?layer=nolayer", "GET", b"", 404, "nolayer"),
        ("/api/units/colour:99/top", "GET", b"", 404, "colour:99"),
        (f"/api/units/{UNIT}/top?k=0", "GET", b"", 400, "k must be"),
        (f"/api/units/{UNIT}/top?k=1001", "GET", b"", 400, "k must be"),
        (f"/api/units/{UNIT}/top?pick=best", "GET", b"", 400, "best"),
        (f"/api/units/{UNIT}/top?crop=square", "GET", b"", 400, "square"),
        (f"/api/units/{UNIT}/top?crop=tight", "GET", b"", 400, "tighten"),
        (f"/api/units/{UNIT}/top?share=much", "GET", b"", 400, "much"),
        ("/api/similar", "GET", b"", 400, "unit=U"),
        ("/api/similar?image_id=48", "GET", b"", 404, "0 to 47"),
        ("/api/similar?image_id=1&box=1,2,3", "GET", b"", 400, "box"),
        ("/api/similar?image_id=1&box=0,0,9000,9000", "GET", b"", 400, "9000"),
        ("/api/fires?image_id=../etc/passwd", "GET", b"", 400, "image_id"),
        ("/api/fires", "POST", b"", 422, "empty"),
        ("/api/fires", "POST", b"<svg>", 422, "not an image"),
        ("/api/fires", "POST", photograph()[:300], 422, "damaged"),
        ("/api/fires?layer=nolayer", "POST", photograph(), 404, "nolayer"),
        ("/api/jobs?kind=tight&unit=colour:0", "POST", b"", 403, "--compute"),
        ("/layers/..%2f..%2fetc", "GET", b"", 404, "no layer"),
        ("/units/..%2f..%2fetc%2fpasswd", "GET", b"", 404, "passwd"),
        ("/static/..%2fpages.py", "GET", b"", 404, ""),
        ("/static/%2e%2e/pages.py", "GET", b"", 404, ""),
        ("/strips/colour/9.jpg", "GET", b"", 404, "block 9"),
        ("/photographs/48.jpg", "GET", b"", 404, "0 to 47"),
        ("/crops/colour/0/auto/0/9999/0/192", "GET", b"", 404, "positions"),
        ("/crops/colour/0/auto/0/0/0/5000", "GET", b"", 400, "width"),
        ("/synthetic/colour:0.png", "GET", b"", 404, "synth"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(app, path, method, body, status, word):
    answer = ask(app, path, method, body=body)
    assert answer.status == status, answer.text
    assert word in (answer.json["error"] if path.startswith("/api/") else answer.text)


def test_a_photograph_beyond_the_bounds_is_refused(app, monkeypatch):
    monkeypatch.setattr("patchmine.web.live.asking.MOST_BYTES", 500)
    assert ask(app, "/api/fires", "POST", body=photograph()).status == 413
    monkeypatch.undo()
    monkeypatch.setattr("patchmine.web.live.asking.MOST_PIXELS", 4000)
    answer = ask(app, "/api/fires", "POST", body=photograph())
    assert answer.status == 413
    assert "64x64" in answer.json["error"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"host": "evil.example"}, 421),
        ("GET", {"host": "127.0.0.1.evil.example:8000"}, 421),
        ("GET", {"host": ""}, 421),
        ("GET", {"host": "localhost:1234"}, 200),
        ("GET", {"host": "[::1]:8000"}, 200),
        ("GET", {"host": "[::1"}, 421),
        ("POST", {"origin": "http://evil.example"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_other_sites_are_kept_out(app, method, headers, status):
    path, body = ("/", b"") if method == "GET" else ("/api/fires?k=1", photograph())
    answer = ask(app, path, method, headers, body)
    assert answer.status == status
    assert HEADERS.items() <= answer.headers.items()


def test_beyond_loopback_nothing_is_answered_without_the_token(shapes_index_dir):
    app = Application(Current(shapes_index_dir), "0.0.0.0", "secret")
    for path in ("/", "/api/units", "/static/app.js", "/?token=wrong"):
        assert ask(app, path).status == 401
    assert ask(app, "/", headers={"host": "192.168.0.7:8000", "authorization": "Bearer secret"}).status == 200
    moved = ask(app, "//layers/colour?token=secret&sort=max")
    assert moved.status == 303
    assert moved.headers["location"] == "/layers/colour?sort=max"
    cookie = moved.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert ask(app, "/layers/colour", headers={"cookie": cookie.partition(";")[0]}).status == 200


@pytest.mark.parametrize("path", ["/strips/colour/0.jpg", "/photographs/3.jpg", "/", "/static/app.js", "/search.js"])
def test_a_browser_that_has_it_gets_nothing_again(app, path):
    first = ask(app, path)
    assert first.status == 200
    again = ask(app, path, headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status, again.body) == (304, b"")
    assert ask(app, path, headers={"if-none-match": '"other"'}).status == 200


def test_a_crop_is_what_a_sheet_shows(app, shapes_index_dir):
    unit = patchmine.open_index(shapes_index_dir).unit(UNIT)
    patches = unit.top(1, crop="auto")
    patch = patches[0]
    place = f"{patch.image_id}/{patch.position.y}/{patch.position.x}"
    answer = ask(app, f"/crops/colour/0/auto/{place}/192")
    assert answer.headers["content-type"] == "image/webp"
    shown = Image.open(io.BytesIO(answer.body)).convert("RGB")
    drawn = patch.tile(patch.view(patches.cropping), shown.size)
    apart = [abs(a - b) for a, b in zip(shown.resize((8, 8)).tobytes(), drawn.resize((8, 8)).tobytes(), strict=True)]
    assert max(apart) < 24
    others = [ask(app, f"/crops/colour/0/{other}") for other in (f"image/{place}/192", f"auto/{place}/96")]
    assert answer.headers["etag"] not in [other.headers["etag"] for other in others]


def test_text_from_an_index_is_only_ever_text(own):
    name = "<img src=x onerror=alert(1)>\"'&"
    (own / "names.json").unlink(missing_ok=True)
    index = patchmine.open_index(own)
    index.names.given[Unit("colour", 0)] = name
    current = Current(own)
    current.index().names.given[Unit("colour", 0)] = name
    app = Application(current)
    for path in ("/", "/layers/colour", f"/units/{UNIT}", "/nearest/colour:1"):
        text = ask(app, path).text
        assert "<img src=x" not in text
        assert "alert(1)>" not in text
    assert "&lt;img src=x" in ask(app, f"/units/{UNIT}").text
    assert ask(app, "/search.js").text.isascii()


def test_class_and_file_names_are_only_ever_text(tmp_path):
    """Names that a file system allows: markup, quotes, a newline, bytes that are not UTF-8."""
    hostile = [b"<script>alert(1)</script>", b"\"'><b onclick=x>", b"two\nlines", b"\xff\xfe", b"{{ 7*7 }}&amp;"]
    for name in map(os.fsdecode, hostile):
        folder = tmp_path / "photographs" / name.replace("/", "_")
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"{number}{folder.name}.jpg").write_bytes(photograph())
    directory = tmp_path / "hostile.patchmine"
    patchmine.build_index(tmp_path / "photographs", directory, Wanted(model="shapes"))
    app = Application(Current(directory))
    layers = list(patchmine.open_index(directory).layers)
    for path in ("/", *(f"/layers/{layer}" for layer in layers), *(f"/units/{layer}:0" for layer in layers)):
        found = Tags(ask(app, path).text)
        assert found.scripts
        assert all(address.startswith(("/static/", "/search.js")) for address in found.scripts)
        assert not found.handlers
        assert path == "/" or "{{ 7*7 }}&amp;" in found.words or path.startswith("/layers")
    assert ask(app, f"/api/units/{layers[0]}:0/top?k=15").status == 200


def test_what_a_comparison_and_a_study_found_is_on_the_page(own):
    index = patchmine.open_index(own)
    unit = index.unit(UNIT)
    app = Application(Current(own), compute=True)
    assert 'class="why"' not in ask(app, f"/units/{UNIT}").text
    comparison = unit.compare()
    findings.write(index, unit.unit, findings.WHY, findings.Finding(["It is the <canvas>."], [("corners", "no: even")]))
    text = html.unescape(ask(app, f"/units/{UNIT}").text)
    assert all(fact in text for fact in (*comparison.facts(), *comparison.warnings()))
    assert "It is the &lt;canvas&gt;." in ask(app, f"/units/{UNIT}").text
    kept = next((own / "findings").glob("compare-*"))
    kept.write_text(kept.read_text().replace(index.job.digest, "0" * 32))
    assert findings.read(index, unit.unit, findings.COMPARE) is None
    kept.write_bytes(b"[" * 100_000)
    assert ask(app, f"/units/{UNIT}").status == 200


def test_units_are_sorted_as_on_the_command_line(app, cli, shapes_index_dir):
    printed = json.loads(cli("units", "--sort", "max", "-i", shapes_index_dir, "--json").stdout)
    assert ask(app, "/api/units?sort=max").json == printed
    assert "did you mean" in ask(app, "/api/units?sort=maxx").json["error"]


def test_a_question_whose_browser_went_away_loses_its_turn(shapes_index):
    class Gone:
        async def receive(self):
            return {"type": "http.disconnect"}

    asks, asked = Asking(), []
    shapes_index.network()

    async def both():
        first = asyncio.create_task(asks.ask(Waiting(), shapes_index, lambda: time.sleep(1)))
        await asyncio.sleep(0.1)
        with pytest.raises(PatchmineError, match="no longer waits"):
            await asks.ask(Gone(), shapes_index, lambda: asked.append(1))
        await first

    asyncio.run(both())
    assert not asked


def test_an_index_that_changes_or_vanishes_is_noticed(own, cli):
    app = Application(Current(own))
    before = ask(app, f"/units/{UNIT}")
    cli("name", UNIT, "my_own_name", "-i", own)
    after = ask(app, f"/units/{UNIT}")
    assert "my_own_name" not in before.text
    assert "my_own_name" in after.text
    own.rename(own.with_name("away"))
    gone = ask(app, f"/units/{UNIT}")
    assert gone.status == 503
    assert "does not exist" in gone.text or "missing" in gone.text or "cannot be read" in gone.text
    assert ask(app, "/api/units").status == 503
    own.with_name("away").rename(own)
    assert ask(app, f"/units/{UNIT}").status == 200


def test_missing_photographs_are_said(tmp_path, photographs, cli):
    moved = shutil.copytree(photographs, tmp_path / "mine")
    patchmine.build_index(moved, tmp_path / "mine.patchmine", model="shapes")
    app = Application(Current(tmp_path / "mine.patchmine"))
    for file in moved.rglob("*.jpg"):
        file.unlink()
    assert ask(app, "/strips/colour/0.jpg").status == 200
    index = patchmine.open_index(tmp_path / "mine.patchmine")
    lost = next(image for image in range(len(index)) if index.path(image).endswith(".jpg"))
    answer = ask(app, f"/photographs/{lost}.jpg")
    assert answer.status == 404
    assert answer.headers["content-type"].startswith("image/svg+xml")
    shutil.rmtree(moved)
    assert "--source FOLDER" in ask(Application(Current(tmp_path / "mine.patchmine")), "/").text


def test_work_is_done_shown_and_stopped(own):
    app = Application(Current(own), compute=True)
    job = ask(app, f"/api/jobs?kind=tight&unit={UNIT}", "POST").json
    assert ask(app, f"/api/jobs?kind=tight&unit={UNIT}", "POST").json["job"] == job["job"]
    slow = ask(app, "/api/jobs?kind=synthetic&unit=colour:1", "POST").json
    ask(app, f"/api/jobs/{slow['job']}", "DELETE")
    states = {}
    until = time.monotonic() + 60
    while time.monotonic() < until and not all(
        state in ("done", "stopped", "failed") for state in states.values() or [""]
    ):
        assert ask(app, f"/units/{UNIT}").status == 200
        states = {one["job"]: one["state"] for one in ask(app, "/api/jobs").json["jobs"]}
        time.sleep(0.05)
    assert states == {job["job"]: "done", slow["job"]: "stopped"}
    assert any(patchmine.open_index(own).tight_crops.read(Unit("colour", 0)))
    assert ask(app, "/api/jobs?kind=nothing&unit=colour:0", "POST").status == 400
    assert ask(app, "/api/jobs/77").status == 400


def test_openapi_describes_every_route_of_the_api(app):
    document = ask(app, "/openapi.json").json
    for path, methods in document["paths"].items():
        for method in methods:
            place = path.replace("{unit}", UNIT)
            assert ask(app, place, method.upper()).status not in (404, 405), place


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_address_and_ends_cleanly(shapes_index_dir, tmp_path, sent):
    command = [sys.executable, "-m", "patchmine", "serve", "-i", str(shapes_index_dir), "--port", "0"]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = running.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        running.send_signal(signal.SIGPIPE)  # as a browser causes it that goes away in the middle
        with urllib.request.urlopen(address) as page:
            assert page.status == 200
        maps = Path(f"/proc/{running.pid}/maps")
        assert not maps.exists() or "libtorch" not in maps.read_text()
    finally:
        running.send_signal(sent)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 0
    assert out == ""
    assert "Traceback" not in err


# A command whose photographs take a minute to decode, as large ones do on a busy machine.
SLOWLY = """
import time
from patchmine.web import pictures
pictures.piece = lambda *_, **__: time.sleep(60)
from patchmine.__main__ import main
main()
"""


def test_a_signal_ends_the_command_whatever_is_asked_of_it(shapes_index_dir):
    command = [sys.executable, "-c", SLOWLY, "serve", "-i", str(shapes_index_dir), "--port", "0"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = urlsplit(running.stdout.readline().strip())

    def asked(path):
        client = socket.create_connection((address.hostname, address.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n".encode())
        return client

    waits = asked("/crops/colour/0/face/3/0/0/96")
    for left in [asked(f"/strips/{layer}/0.jpg") for layer in ("colour", "template") for _ in range(6)]:
        left.close()
    with urllib.request.urlopen(address.geturl()) as page:
        assert page.status == 200
    running.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, err = running.communicate(timeout=300)
    assert time.monotonic() - began < 20
    assert (running.returncode, err.count("\n")) == (0, 1), err
    with waits, waits.makefile("rb") as answer:
        assert answer.readline().split()[1] == b"503"


def test_a_picture_is_drawn_only_while_somebody_waits_for_it(shapes_index_dir, monkeypatch):
    drawn, free = [], threading.Event()

    def piece_of(data, *words, **more):
        drawn.append(data)
        free.wait(60)
        return piece(data, *words, **more)

    monkeypatch.setattr("patchmine.web.pictures.piece", piece_of)
    served, cores = Application(Current(shapes_index_dir)), os.cpu_count()

    async def all_():
        def asked(number):
            path = f"/crops/colour/0/face/{number}/0/0/96"
            return asyncio.create_task(sent(served, path, receive=gone[number].get))

        gone = [asyncio.Queue() for _ in range(cores + 8)]
        tasks = [asked(number) for number in range(cores + 8)]
        while len(drawn) < cores:
            await asyncio.sleep(0.01)
        for queue in gone[cores : cores + 4]:  # these leave before their turn
            queue.put_nowait({"type": "http.disconnect"})
        await asyncio.wait(tasks[cores : cores + 4])
        served.close()  # the others lose it here
        refused = [task.result().status for task in (await asyncio.wait(tasks[cores + 4 :]))[0]]
        free.set()
        return [(await task).status for task in tasks[:cores]], refused

    assert asyncio.run(all_()) == ([200] * cores, [503] * 4)
    assert len(drawn) == cores


def test_a_port_in_use_names_the_next_one(cli, shapes_index_dir):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = failed(cli("serve", "-i", shapes_index_dir, "--port", port))
    assert f"port {port} is in use: give another, as in --port" in said
    assert "from 0 to 65535" in failed(cli("serve", "-i", shapes_index_dir, "--port", 70000))
    assert "--host nowhere.invalid" in failed(cli("serve", "-i", shapes_index_dir, "--host", "nowhere.invalid"))


def test_a_hostile_index_is_shown_or_refused_in_words(shapes_index_dir, tmp_path):
    """A sample of the indexes of tests/test_hostile.py; a bug would raise, through the application, into the test."""
    directory = tmp_path / "hostile.patchmine"
    for _, mutation in random.Random(1).sample(tampering.mutations(shapes_index_dir, 0, 0), 4):
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(shapes_index_dir, directory)
        mutation(directory)
        try:
            app = Application(Current(directory))
        except PatchmineError:
            continue
        for path in ("/", "/layers/colour", f"/units/{UNIT}", "/search.js", "/strips/colour/0.jpg", "/api/units"):
            assert ask(app, path).status in (200, 404, 409, 503)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("box", [Box(20, 30, 120, 130), Box(-40, 100, 160, 300), Box(100, 100, 108, 108)])
def test_a_tile_for_a_screen_looks_as_if_it_were_decoded_whole(orientation, box):
    rng = np.random.default_rng(4)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(coarse.resize((1603, 1201), Image.Resampling.BICUBIC), quality=95, exif=exif)
    size = (1603, 1201) if orientation == 1 else (1201, 1603)
    preprocessing = Preprocessing(256, (224, 224), "bicubic", (0.5,) * 3, (0.5,) * 3)
    placement = preprocessing.place(*size)
    whole, quick = (
        np.asarray(piece(data, placement, View(box, box), screen).drawn((96, 96)), np.int16)
        for screen in (None, (96, 96))
    )
    assert np.abs(whole - quick).mean() < 3
    with pytest.raises(PhotographError, match="is now 700x500 pixels"):
        piece(jpeg(coarse.resize((700, 500))), placement, View(box, box), (96, 96))

"""The photographs of the demo: those inside packages, and Imagenette from a small archive served on loopback."""

import hashlib
import io
import tarfile
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image
from torchvision.datasets import Imagenette

from patchmine.cli import samples as demo
from patchmine.errors import RequestError
from patchmine.sources import open_source
from tests.conftest import jpeg

CLASSES = {"n01440764": 3, "n03888257": 2}


@pytest.fixture
def collected(tmp_path):
    for module in ("skimage", "sklearn", "foolbox"):
        pytest.importorskip(module)
    assert demo.collect_photographs(tmp_path / "photographs") == len(demo.samples())
    return tmp_path / "photographs"


def test_the_photographs_inside_packages_are_copied_as_they_are(collected):
    assert len(demo.samples()) >= 34
    for sample in demo.samples():
        assert (collected / sample.place).read_bytes() == sample.file.read_bytes()
        with Image.open(collected / sample.place) as picture:
            assert min(picture.size) >= 224


def test_the_folder_is_a_source_with_classes_where_they_are_known(collected):
    entries = open_source(str(collected)).entries()
    classes = {entry.path: entry.class_name for entry in entries}
    assert len(entries) == len(demo.samples())
    assert classes["chelsea.png"] is None
    assert classes["bull mastiff/imagenet_00_243.jpg"] == "bull mastiff"
    assert sum(name == "jeep" for name in classes.values()) == 2


def test_one_line_tells_where_they_come_from(collected):
    assert demo.count_by_package().startswith(f"{len(demo.samples())} photographs: ")
    assert "20 from foolbox" in demo.count_by_package()


def test_a_missing_package_is_named_with_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "find_spec", lambda module: None)
    with pytest.raises(RequestError, match=r"photographs require scikit-image: pip install 'patchmine\[demo\]'"):
        demo.collect_photographs(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused(collected):
    with pytest.raises(RequestError, match="cannot write to .*chelsea.png"):
        demo.collect_photographs(collected / "chelsea.png")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A small Imagenette behind torchvision's own address book. Yields the paths that were asked for by GET."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    archive = folder / "imagenette2-320.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for split in ("train", "val"):
            for wnid, count in CLASSES.items():
                for number in range(count):
                    data = jpeg(Image.new("RGB", (32, 32), (40 * number, 90, 120)))
                    member = tarfile.TarInfo(f"imagenette2-320/{split}/{wnid}/{split}_{number}.JPEG")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    gets = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            gets.append(self.path)
            super().do_GET()

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(Imagenette._ARCHIVES, demo.IMAGENETTE_SIZE, (url, md5))
    yield gets
    server.shutdown()
    thread.join()
    server.server_close()


def point_at(monkeypatch, url=None, md5=None):
    """Let torchvision's address book name another address or checksum."""
    old_url, old_md5 = Imagenette._ARCHIVES[demo.IMAGENETTE_SIZE]
    monkeypatch.setitem(Imagenette._ARCHIVES, demo.IMAGENETTE_SIZE, (url or old_url, md5 or old_md5))


def test_imagenette_becomes_a_folder_of_classes(served, tmp_path, capsys):
    folder = tmp_path / "data" / "imagenette"
    assert demo.fetch_imagenette(folder) == 2 * sum(CLASSES.values())
    entries = open_source(str(folder)).entries()
    assert Counter(entry.class_name for entry in entries) == {name: 2 * count for name, count in CLASSES.items()}
    assert list((tmp_path / "data").iterdir()) == [folder]
    assert capsys.readouterr().out == ""


def test_what_is_there_is_not_fetched_again(served, tmp_path):
    first = demo.fetch_imagenette(tmp_path / "imagenette")
    asked = len(served)
    assert asked >= 1
    assert demo.fetch_imagenette(tmp_path / "imagenette") == first
    assert len(served) == asked


def test_a_folder_that_was_half_unpacked_is_unpacked_again(served, tmp_path):
    (tmp_path / "imagenette-unfinished" / "imagenette2-320" / "train" / "n01440764").mkdir(parents=True)
    assert demo.fetch_imagenette(tmp_path / "imagenette") == 2 * sum(CLASSES.values())


def test_an_archive_that_arrived_wrong_is_refused_and_fetched_anew(served, tmp_path, monkeypatch):
    right = Imagenette._ARCHIVES[demo.IMAGENETTE_SIZE][1]
    point_at(monkeypatch, md5="0" * 32)
    with pytest.raises(RequestError, match="could not download Imagenette from .*corrupted"):
        demo.fetch_imagenette(tmp_path / "imagenette")
    assert not (tmp_path / "imagenette").exists()
    point_at(monkeypatch, md5=right)
    assert demo.fetch_imagenette(tmp_path / "imagenette") == 2 * sum(CLASSES.values())


def test_without_a_network_one_line_says_so(served, tmp_path, monkeypatch):
    url = Imagenette._ARCHIVES[demo.IMAGENETTE_SIZE][0]
    point_at(monkeypatch, url=url.replace("imagenette2", "nothing"))
    with pytest.raises(RequestError, match=r"\(404 .*\): try again with a network connection"):
        demo.fetch_imagenette(tmp_path / "imagenette")
    point_at(monkeypatch, url="http://127.0.0.1:9/imagenette2-320.tgz")
    with pytest.raises(RequestError, match=r"\(Connection refused\)") as caught:
        demo.fetch_imagenette(tmp_path / "imagenette")
    assert "\n" not in str(caught.value)

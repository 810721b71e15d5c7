"""An index from a stranger: whatever is in it, it answers or is refused in one line. SECURITY.md lists the promises."""

import json
import os
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import patchmine
from patchmine import models
from patchmine.errors import ModelError, PatchmineError, PhotographError, SourceError, StoreError
from patchmine.sources import open_source
from patchmine.store.hdf5 import CHUNK_BYTES, dataset_digests
from patchmine.store.hdf5_claims import claimed_length
from patchmine.system.printable import printable
from tests.support import tampering
from tests.support.commands import failed
from tests.support.hostile import ask, isolated, outcome

LAYER = "contrast"


@pytest.fixture
def hostile(shapes_index_dir, tmp_path):
    """An index of one's own, to tamper with."""
    return Path(shutil.copytree(shapes_index_dir, tmp_path / "hostile.patchmine"))


def rewritten(directory, change):
    """The index with its manifest changed."""
    file = directory / "manifest.json"
    manifest = json.loads(file.read_bytes())
    change(manifest)
    file.write_text(json.dumps(manifest))
    return directory


def test_an_honest_index_answers(hostile):
    ask(hostile)


def test_every_kind_of_tampering_is_answered_or_refused_in_one_line(shapes_index_dir, tmp_path):
    """A sample; tests/slow/test_hostile.py does all of it, and thousands of changed bytes."""
    everything = tampering.mutations(shapes_index_dir, 0, 0)
    assert len(everything) > 3000
    for name, mutation in random.Random(0).sample(everything, 40):
        found = outcome(shapes_index_dir, mutation, tmp_path)
        assert found.startswith(("answered", "refused")), f"{name}: {found}"


def test_changed_bytes_do_not_get_further_than_libhdf5(shapes_index_dir):
    flips = 25
    start = len(tampering.mutations(shapes_index_dir, 0, 0))
    found = list(isolated(shapes_index_dir, flips, 0, range(start, start + flips)))
    assert len(found) == flips
    assert not [one for one in found if one.kind == "BUG"]


@pytest.mark.parametrize("layer", ["..", "a/../b", "/colour", "colour/", ".", "a//b", "\x1b[2J"])
def test_a_layer_leads_nowhere_else(hostile, layer):
    rewritten(hostile, lambda m: m["layers"][1].update(layer=layer))
    with pytest.raises(StoreError, match=r"manifest\.json is damaged .*--fresh"):
        patchmine.open_index(hostile)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m["job"].pop("keep"), "job.keep is missing"),
        (lambda m: m["job"].pop("runtime"), "job.runtime is missing"),
        (lambda m: m["layers"][0].update(units=10**7), r"layers\[0\].units is 10000000, not a whole number from 1 to"),
        (lambda m: m["layers"].append(m["layers"][0]), "a layer twice"),
        (lambda m: m["job"]["preprocessing"].update(crop=[10**6, 10**6]), r"crop\[0\] is 1000000"),
        (lambda m: m["job"]["preprocessing"].update(std=[0, 1, 1]), r"std\[0\] is 0"),
        (lambda m: m["job"]["preprocessing"].update(interpolation="magic"), "not one of bilinear, bicubic"),
        (lambda m: m.update(images="48"), "images is '48'"),
        (lambda m: m.update(images=-1), "images is -1"),
        (lambda m: m.update(job=[[]]), "job is a list of length 1, not an object"),
        (lambda m: m.update(layers=[]), "names 0 layers"),
        (lambda m: m["checksums"]["files"].update({"../../x": "0"}), "is not a file of an index"),
        (lambda m: m.update(checksums=[]), "checksums is a list of length 0"),
    ],
)
def test_every_value_of_the_manifest_is_checked(hostile, change, reason):
    rewritten(hostile, change)
    with pytest.raises(StoreError, match=reason):
        patchmine.open_index(hostile)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"format": 1, "job": ' + "[" * 100_000, "nested too deeply|Expecting|recursion"),
        ('{"format": 1, "images": ' + "9" * 10_000 + "}", "digits"),
        ('{"format": 1, "images": NaN}', "NaN is not a number"),
        ('{"format": 1, "images": 1e999}', "1e999 is not a number"),
        ('{"format": {"a": 1}}', "index format unknown"),
        ('{"format": true}', "is damaged or from another version"),
        ("[]", "a list of length 0, not an object"),
        ("", "is damaged"),
    ],
)
def test_a_manifest_that_is_none(hostile, text, reason):
    (hostile / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=reason) as caught:
        patchmine.open_index(hostile)
    assert "\n" not in str(caught.value)


def test_the_size_of_a_manifest_is_looked_at_before_it_is_read(hostile):
    with (hostile / "manifest.json").open("rb+") as file:
        file.truncate(1 << 40)
    with pytest.raises(StoreError, match="1099511627776 bytes, more than"):
        patchmine.open_index(hostile)


@pytest.mark.parametrize("name", ["manifest.json", "activations.h5"])
def test_a_pipe_is_not_waited_for(hostile, name):
    (hostile / name).unlink()
    os.mkfifo(hostile / name)
    with pytest.raises(StoreError, match="not a regular file"):
        patchmine.open_index(hostile)


def test_an_index_of_an_older_build_says_to_build_it_again(hostile):
    with h5py.File(hostile / "activations.h5", "r+") as file:
        del file[f"layers/{LAYER}/fields"]
    with pytest.raises(StoreError, match=f"layers/{LAYER}/fields: it is missing; build the index again with --fresh"):
        patchmine.open_index(hostile).unit(f"{LAYER}:0").top(3)


def replaced(directory, name, make):
    with h5py.File(directory / "activations.h5", "r+", libver="v110") as file:
        group, _, last = name.rpartition("/")
        old = file[name][()]
        del file[name]
        make(file[group], last, old)


def outside(directory):
    other = directory.parent / "outside.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.zeros((8, 10), np.float32)
    return str(other)


def virtual(group, name, directory):
    layout = h5py.VirtualLayout((8, 10), "f4")
    layout[...] = h5py.VirtualSource(outside(directory), "secret", (8, 10))
    group.create_virtual_dataset(name, layout)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda g, n, old, d: g.update({n: h5py.ExternalLink(outside(d), "secret")}), "a link to another place"),
        (lambda g, n, old, d: g.update({n: h5py.SoftLink("/images/path")}), "a link to another place"),
        (lambda g, n, old, d: virtual(g, n, d), "stored in a way that patchmine does not write"),
        (
            lambda g, n, old, d: g.create_dataset(n, (8, 10), "f4", external=[(outside(d), 0, 320)]),
            "lies in another file",
        ),
        (lambda g, n, old, d: g.create_dataset(n, data=old, compression="gzip"), "it is compressed"),
        (lambda g, n, old, d: g.create_dataset(n, data=old, shuffle=True, chunks=True), "it is compressed"),
        (lambda g, n, old, d: g.create_dataset(n, (8, 10), "f4"), "the file does not hold that much data"),
        (lambda g, n, old, d: g.create_dataset(n, (8, 10), "f4", chunks=(4, 10)), "does not hold that much data"),
        (lambda g, n, old, d: g.create_dataset(n, (8, 10**12), "f4", chunks=(8, 1024)), "shape is .8, 1000000000000."),
        (lambda g, n, old, d: g.create_dataset(n, data=old.astype("f8")), "does not hold f4"),
        (lambda g, n, old, d: g.create_dataset(n, data=old[:, :9]), r"shape is \(8, 9\), not \(8, 10\)"),
        (lambda g, n, old, d: g.create_dataset(n, data=h5py.Empty("f4")), "no shape|shape is"),
        (lambda g, n, old, d: g.create_group(n), "not a dataset"),
        (lambda g, n, old, d: g.create_dataset(n, data=old[:, ::-1]), "not a ranking"),
        (lambda g, n, old, d: g.create_dataset(n, data=old + np.float32("nan")), None),
    ],
)
def test_a_dataset_is_what_the_layout_says_or_is_not_read(hostile, make, reason):
    replaced(hostile, f"layers/{LAYER}/top/value", lambda group, name, old: make(group, name, old, hostile))
    top = patchmine.open_index(hostile).unit(f"{LAYER}:0").top
    if reason is None:  # no number at all: as if no photograph had given one
        assert len(top(3)) == 0
        return
    with pytest.raises(StoreError, match=reason) as caught:
        top(3)
    assert f"layers/{LAYER}/top/value" in str(caught.value) or f"{LAYER}/top/value" in str(caught.value)


def test_checksums_are_not_taken_of_what_lies_elsewhere_or_is_packed(hostile):
    file = hostile / "activations.h5"
    assert dataset_digests(file) == patchmine.open_index(hostile).manifest["checksums"]["datasets"]
    replaced(hostile, "images/width", lambda g, n, old: g.create_dataset(n, data=old, compression="gzip"))
    with pytest.raises(StoreError, match="images/width: it is compressed"):
        dataset_digests(file)
    tampering.claim(hostile, "images/path", 2**32 - 1)
    with pytest.raises(StoreError, match="images/path: it claims a text"):
        dataset_digests(file)


def test_a_chunk_is_no_larger_than_it_needs_to_be(hostile):
    rewritten(hostile, lambda m: m["job"].update(keep=1 << 20))
    huge = (8, 1 << 20)
    assert CHUNK_BYTES < 8 * 4 << 20
    replaced(
        hostile,
        f"layers/{LAYER}/top/value",
        lambda g, n, old: g.create_dataset(n, huge, "f4", chunks=huge, fillvalue=0),
    )
    with pytest.raises(StoreError, match="its chunks have 33554432 bytes, more than 16777216"):
        patchmine.open_index(hostile).unit(f"{LAYER}:0").top(3)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (f"layers/{LAYER}/top/image", 48, "photograph 48 is out of range: the index has 48"),
        (f"layers/{LAYER}/top/position", 112 * 112, "outside the grid 112x112"),
        (f"layers/{LAYER}/vector_image", 2**32 - 1, "photograph 4294967295 is out of range"),
        (f"layers/{LAYER}/stats/tied", -1, "counts more than 48"),
        (f"layers/{LAYER}/stats/positive", np.nan, "not finite"),
        (f"layers/{LAYER}/stats/positive", 2, "share .* is out of range"),
        (f"layers/{LAYER}/effective", np.nan, "not shares from 0 to 1"),
        (f"layers/{LAYER}/effective", -1, "not shares from 0 to 1"),
        ("images/class", 20, "images/class: class 20 is out of range"),
        ("images/class", -2, "images/class: class -2 is out of range"),
        ("images/width", 0, "photograph 0 cannot have 0x"),
        ("images/height", 2**32 - 1, "photograph 0 cannot have"),
        ("images/digest", b"x", "the digest of photograph 0 is malformed"),
        (f"layers/{LAYER}/fields", b"[]", "no receptive field"),
        (f"layers/{LAYER}/fields", b"[1]", "not an object"),
        (f"layers/{LAYER}/fields", b'[{"input": [224, 224]}]', "is missing"),
        ("images/path", b"x" * 5000, "claims a text of more than 4096 bytes"),
    ],
)
def test_numbers_that_lead_nowhere_are_refused(hostile, name, value, reason):
    with h5py.File(hostile / "activations.h5", "r+", libver="v110") as file:
        file[name][...] = value
    with pytest.raises(StoreError, match=reason):
        ask(hostile)


@pytest.mark.parametrize("name", ["images/path", "images/class_name", f"layers/{LAYER}/fields"])
def test_a_text_cannot_claim_more_than_there_is(hostile, name):
    """libhdf5 would make room for 4 GB, and take half a minute, before it finds that the text is not there."""
    tampering.claim(hostile, name, 2**32 - 1)
    with pytest.raises(StoreError, match=f"{name}: it claims a text of more than"):
        ask(hostile)


def test_nor_can_an_attribute(hostile):
    path = hostile / "activations.h5"
    data = bytearray(path.read_bytes())
    with path.open("rb") as file, h5py.File(path) as h5:
        address = h5py.h5o.get_info(h5.id).addr
        assert claimed_length(file, address, b"job") == 32
        assert claimed_length(file, address, b"manifest") == len(h5.attrs["manifest"])
        with pytest.raises(LookupError):
            claimed_length(file, address, b"jo")
    place = data.index((32).to_bytes(4, "little"), data.index(b"job\0"))
    # What libhdf5 has read of the header stays in its memory, so the checksum of the header does not matter here.
    from patchmine.store.hdf5 import Datasets

    opened = Datasets(path)
    with path.open("rb+") as file:
        file.seek(place)
        file.write(b"\xff" * 4)
    with pytest.raises(StoreError, match="attribute job: it claims a text of more than 4096 bytes"):
        opened.label("job", 4096)
    opened.close()


@pytest.fixture
def indexed(photographs, tmp_path):
    """A folder of photographs and its index."""
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    patchmine.build_index(folder, tmp_path / "p.patchmine", model="shapes")
    return folder, tmp_path / "p.patchmine"


def test_a_photograph_is_shown_only_if_it_is_the_one_that_was_indexed(cli, indexed, tmp_path):
    folder, directory = indexed
    patch = patchmine.open_index(directory).units()[0].top(1)[0]
    shown = folder / patch.image
    kept = shown.read_bytes()
    # A link of the user's own to the same photograph is followed.
    (tmp_path / "elsewhere").write_bytes(kept)
    shown.unlink()
    shown.symlink_to(tmp_path / "elsewhere")
    assert patch.crop().size == (patch.box.width, patch.box.height)
    # One that leads to another picture is not, though it is one.
    with Image.open(tmp_path / "elsewhere") as picture:
        Image.new("RGB", picture.size).save(tmp_path / "secret.png")
    shown.unlink()
    shown.symlink_to(tmp_path / "secret.png")
    with pytest.raises(PhotographError, match="has changed since it was indexed"):
        patch.crop()
    done = cli("top", "-i", directory, "--unit", str(patch.unit), "-k", 4, "-o", tmp_path / "sheet.png")
    assert done.returncode == 0
    assert "1 of 4 photographs could not be shown" in done.stderr
    assert patch.image in done.stderr


def test_a_path_cannot_lead_out_of_the_source(indexed):
    _, directory = indexed
    for path in ("../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "./a", ""):
        with h5py.File(directory / "activations.h5", "r+") as file:
            file["images/path"][...] = path.encode()
        index = patchmine.open_index(directory)
        with pytest.raises(PhotographError, match="its path leads out of the folder"):
            index.units()[0].top(1)[0].crop()
        index.store.close()


@pytest.mark.parametrize(
    "spec", ["~nobody-of-that-name/x", "shapes:0", "shapes:99999999999", "/dev/zero", "\x00", "union:[", "x" * 60_000]
)
def test_a_source_that_is_none_is_refused(hostile, spec):
    with pytest.raises(SourceError):
        open_source(spec)
    rewritten(hostile, lambda m: m["job"].update(source=spec))
    with pytest.raises(PatchmineError):
        patchmine.open_index(hostile).units()[0].top(1)[0].crop()


def test_a_source_that_waits_is_not_waited_for(hostile, tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    rewritten(hostile, lambda m: m["job"].update(source=str(tmp_path / "pipe.tar")))
    with pytest.raises(SourceError):
        patchmine.open_index(hostile).units()[0].top(1)[0].crop()


def test_an_index_does_not_choose_code(cli, hostile, tmp_path):
    code = tmp_path / "net.py"
    code.write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from patchmine import models\ndef build():\n"
        "    network = models.load('shapes')\n    return network.module, network.preprocessing\n"
    )
    spec = f"{code}:build"
    rewritten(hostile, lambda m: m["job"].update(model=spec))
    line = failed(cli("verify", "--crops", "-i", hostile))
    assert f"--model {spec}" in line
    assert not (tmp_path / "ran").exists()
    assert "was built with --model" in failed(cli("verify", "--crops", "-i", hostile, "--model", "shapes"))
    assert not (tmp_path / "ran").exists()
    done = cli("verify", "--crops", "-i", hostile, "--model", spec, "--units", 1, "-k", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran").exists()


def test_another_network_than_that_of_the_index_is_refused(hostile):
    job = patchmine.open_index(hostile).job
    assert models.load_for_index(job).preprocessing == job.preprocessing
    rewritten(hostile, lambda m: m["job"].update(weights="0" * 32))
    with pytest.raises(StoreError, match=rf"\(digest {'0' * 32}\) than those found here \(digest {job.weights}\)"):
        models.load_for_index(patchmine.open_index(hostile).job)


@pytest.mark.parametrize("layers", [{"layer": "nothing"}, {"units": 7}, {"grid": [7, 7]}])
def test_verify_refuses_layers_that_the_network_has_not(cli, hostile, layers):
    rewritten(hostile, lambda m: m["layers"][0].update(layers))
    done = cli("verify", "--crops", "-i", hostile, "--units", 1, "-k", 1)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("patchmine: ")


@pytest.mark.parametrize("name", ["hf-hub:a/b", "hf_hub:a/b", "local-dir:/tmp", "a/b", "resnet18.hf-hub:x", "../x", ""])
def test_timm_fetches_from_nowhere_else(name):
    with pytest.raises(ModelError, match="timm has no network"):
        models.load(f"timm:{name}")


def test_names_cannot_steer_a_terminal(cli, hostile):
    evil = "\x1b]0;mine\x07\x1b[2J"
    with h5py.File(hostile / "activations.h5", "r+", libver="v110") as file:
        file["images/path"][...] = evil.encode() + b"\xff"
        file["images/class_name"][...] = evil.encode() + b"\n" + "\u202e".encode()
    rewritten(hostile, lambda m: m["job"].update(model=evil))
    for words in (("top", "--unit", f"{LAYER}:0"), ("info",), ("top", "--unit", f"{LAYER}:0", "-o", "sheet.png")):
        done = cli(*words, "-i", hostile)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert "\u202e" not in done.stdout + done.stderr
    assert printable("é 漢 a\tb\udcff") == r"é 漢 a\tb\udcff"

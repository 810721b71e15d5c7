"""Ways to tamper with an index: each `Mutation` changes the files of a copy, and comes with a name.

Bytes of activations.h5 are changed at random; datasets are deleted, resized, retyped, replaced by links, packed or
filled with nonsense; values of the manifest are exchanged.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Mutation = Callable[[Path], None]
TEXTS = (b"", b"../../../etc/passwd", b"/etc/passwd", b"\xff\x1b[2J\n", b"x" * 100_000, b"[" * 100_000)

JUNK: dict[str, Any] = {
    "null": None,
    "a word": "x",
    "an empty word": "",
    "negative": -1,
    "zero": 0,
    "huge": 10**18,
    "enormous": 10**400,
    "a fraction": 0.5,
    "a list": [],
    "lists": [[[]]],
    "an object": {},
    "true": True,
    "out of the index": "../../../etc/passwd",
    "a control character": "\x1b]0;x\x07\n\u202e\ud800",
    "a long word": "x" * 100_000,
}


def mutations(index: Path, flip_count: int, seed: int) -> list[tuple[str, Mutation]]:
    """All of them, in an order that depends on the index and the arguments alone."""
    return [*of_manifest(index), *of_datasets(index), *flips(random.Random(seed), flip_count)]


def flips(rng: random.Random, count: int) -> Iterator[tuple[str, Mutation]]:
    """Bytes of activations.h5 changed: one or several, anywhere or in its first part, which is mostly structure."""
    for number in range(count):
        seed = rng.random()

        def flip(directory: Path, seed: float = seed) -> None:
            here = random.Random(seed)
            file = directory / "activations.h5"
            data = bytearray(file.read_bytes())
            limit = here.choice([512, 8192, len(data), len(data)])
            for _ in range(here.choice([1, 1, 4, 16])):
                data[here.randrange(limit)] = here.choice([0, 255, here.randrange(256)])
            if here.random() < 0.05:
                del data[here.randrange(len(data)) :]
            file.write_bytes(data)

        yield f"flip {number}", flip


def of_manifest(index: Path) -> Iterator[tuple[str, Mutation]]:
    """Each value of the manifest deleted and replaced by what it cannot be, and documents that are none."""
    document = json.loads((index / "manifest.json").read_bytes())
    for place in _places(document):
        shown = ".".join(map(str, place))

        def delete(directory: Path, place: tuple[Any, ...] = place) -> None:
            changed = copy.deepcopy(document)
            del _parent(changed, place)[place[-1]]
            _write(directory, json.dumps(changed))

        yield f"manifest {shown} deleted", delete
        for word, junk in JUNK.items():

            def replace(directory: Path, place: tuple[Any, ...] = place, junk: Any = junk) -> None:
                changed = copy.deepcopy(document)
                _parent(changed, place)[place[-1]] = junk
                _write(directory, _dumped(changed))

            yield f"manifest {shown} is {word}", replace
    text = json.dumps(document)
    for word, data in {
        "NaN": text.replace('"keep": ', '"keep": NaN, "was": '),
        "1e999": text.replace('"seconds": ', '"later": 1e999, "seconds": '),
        "a number of 10,000 digits": text.replace('"keep": ', '"keep": ' + "9" * 10_000),
        "nested 100,000 deep": text.replace('"keep": ', '"keep": ' + "[" * 100_000),
        "nested 100,000 deep and closed": '{"format": 1, "job": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "empty": "",
        "a list": "[]",
        "null": "null",
        "a million layers": text.replace('"layers": [{', '"layers": [' + '{"layer": "a"},' * 1_000_000 + "{"),
    }.items():
        yield f"manifest {word}", partial(_write, text=data)
    yield "manifest of 1 TB", lambda directory: _grow(directory / "manifest.json")
    yield "manifest of other bytes", lambda directory: _overwrite(directory / "manifest.json", b"\xff\xfe{")


def _dumped(document: Any) -> str:
    # Python itself does not write a number of more than 4,300 digits, but reads JSON of anybody.
    return json.dumps(document).replace(str(10**400), "1" + "0" * 400)


def _places(document: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Any = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        if above[:1] == ("checksums",) and len(above) > 1:
            return
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*above, key))


def _parent(document: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        document = document[key]
    return document


def _write(directory: Path, text: str) -> None:
    (directory / "manifest.json").write_text(text, "utf-8", "surrogatepass")


def _overwrite(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _grow(file: Path) -> None:
    with file.open("rb+") as opened:
        opened.truncate(1 << 40)


def of_datasets(index: Path) -> Iterator[tuple[str, Mutation]]:
    """Each dataset deleted, of another shape, type or storage, replaced by a link, or filled with nonsense."""
    with h5py.File(index / "activations.h5") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        # The layers are alike: the first and the last stand for all.
        layers = list(file["layers"])
        names = [n for n in names if n.split("/")[0] != "layers" or n.split("/")[1] in (layers[0], layers[-1])]
        groups = sorted({name.rpartition("/")[0] for name in names})
        kinds = {name: file[name].dtype for name in names}
    for name in names:
        for word, change in _CHANGES.items():
            yield f"{name} {word}", partial(_change, name=name, change=change)
        dtype = kinds[name]
        if dtype.kind != "O":
            fills = [0, -1, 2**32 - 1, 2**31, *([np.nan, np.inf, -np.inf, 1e38] if dtype.kind == "f" else [])]
            for fill in fills:
                yield f"{name} all {fill}", partial(_fill, name=name, fill=fill)
        else:
            for text in TEXTS:
                yield f"{name} all {text[:20]!r}", partial(_fill, name=name, fill=text)
            for length in (2**32 - 1, 10**9):
                yield f"{name} claims {length} bytes", partial(claim, name=name, length=length)
    for name in groups:
        for word, change in _CHANGES.items():
            if word in ("deleted", "a soft link", "an external link", "a number"):
                yield f"group {name} {word}", partial(_change, name=name, change=change)
    yield from _of_fields(index)
    for word, value in {
        "an array": np.zeros(100, np.int64),
        "another": "0" * 32,
        "a number": 5,
        "bytes": np.bytes_(b"0" * 32),
        "long": "x" * 1_000_000,
    }.items():
        yield f"attribute job is {word}", partial(_attribute, value=value)


def _of_fields(index: Path) -> Iterator[tuple[str, Mutation]]:
    with h5py.File(index / "activations.h5") as file:
        layer = next(iter(file["layers"]))
        document = json.loads(file[f"layers/{layer}/fields"][()])
    places = [place for place in _places(document) if not any(isinstance(key, int) and key > 2 for key in place)]
    for place in places:
        for word, junk in JUNK.items():
            if word in ("enormous", "a control character", "lists", "an empty word", "true"):
                continue

            def replace(directory: Path, place: tuple[Any, ...] = place, junk: Any = junk) -> None:
                changed = copy.deepcopy(document)
                _parent(changed, place)[place[-1]] = junk
                _fill(directory, f"layers/{layer}/fields", json.dumps(changed).encode())

            yield f"fields of {layer} {'.'.join(map(str, place))} is {word}", replace


def _change(directory: Path, name: str, change: Callable[[h5py.Group, str, Path], None]) -> None:
    group, _, last = name.rpartition("/")
    with h5py.File(directory / "activations.h5", "r+", libver="v110") as file:
        change(file[group] if group else file, last, directory)


def _fill(directory: Path, name: str, fill: Any) -> None:
    with h5py.File(directory / "activations.h5", "r+", libver="v110") as file:
        dataset = file[name]
        with np.errstate(all="ignore"):
            value = np.array(fill).astype(dataset.dtype) if not isinstance(fill, bytes) else fill
        dataset[...] = value


def _attribute(directory: Path, value: Any) -> None:
    with h5py.File(directory / "activations.h5", "r+", libver="v110") as file:
        file.attrs["job"] = value


def claim(directory: Path, name: str, length: int) -> None:
    """Let the first text of a dataset say that it has so many bytes."""
    path = directory / "activations.h5"
    with h5py.File(path) as file:
        offset = file[name].id.get_offset()
    if offset is not None:
        with path.open("rb+") as opened:
            opened.seek(offset)
            opened.write(length.to_bytes(4, "little"))


def _deleted(group: h5py.Group, name: str, _: Path) -> None:
    del group[name]


def _soft(group: h5py.Group, name: str, _: Path) -> None:
    group.move(name, f"{name}-there")
    group[name] = h5py.SoftLink(f"{group.name}/{name}-there")


def _external_link(group: h5py.Group, name: str, directory: Path) -> None:
    place = f"{group.name}/{name}"
    shutil.copyfile(directory / "activations.h5", directory / "other.h5")
    del group[name]
    group[name] = h5py.ExternalLink(str(directory / "other.h5"), place)


def _as_group(group: h5py.Group, name: str, _: Path) -> None:
    del group[name]
    group.create_group(name)


def _as_number(group: h5py.Group, name: str, _: Path) -> None:
    del group[name]
    group[name] = 7


def _made(**options: Any) -> Callable[[h5py.Group, str, Path], None]:
    """The dataset with the same content, otherwise made. `shape`, `dtype` and options of h5py may be functions."""

    def change(group: h5py.Group, name: str, directory: Path) -> None:
        old = group[name]
        content, dtype, shape = old[()], old.dtype, old.shape
        made = {key: value(shape) if callable(value) else value for key, value in options.items()}
        if "external" in made:
            made["external"] = [(str(directory / "outside.bin"), 0, h5py.h5f.UNLIMITED)]
            (directory / "outside.bin").write_bytes(bytes(1 << 16))
        if dtype.kind == "O" and "dtype" not in made:
            made["dtype"] = h5py.string_dtype("utf-8")
        same = "shape" not in made and "dtype" not in made and "external" not in made and not options.get("empty")
        made.pop("empty", None)
        made.setdefault("shape", shape)
        made.setdefault("dtype", dtype)
        if shape == () and ("chunks" in made or "compression" in made or "maxshape" in made):
            made |= {"shape": (1,)}
        del group[name]
        with contextlib.suppress(ValueError, TypeError):  # not everything can be made of everything
            new = group.create_dataset(name, **made)
            if same:
                new[...] = content

    return change


def _virtual(group: h5py.Group, name: str, directory: Path) -> None:
    old = group[name]
    if old.dtype.kind == "O" or not old.shape:
        return
    shape, dtype = old.shape, old.dtype
    shutil.copyfile(directory / "activations.h5", directory / "other.h5")
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource(str(directory / "other.h5"), f"{group.name}/{name}", shape)
    del group[name]
    group.create_virtual_dataset(name, layout)


def _null(group: h5py.Group, name: str, _: Path) -> None:
    dtype = group[name].dtype
    del group[name]
    group.create_dataset(name, data=h5py.Empty(dtype))


def _longer(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (10**12, *shape[1:]) if shape else (10**12,)


_CHANGES: dict[str, Callable[[h5py.Group, str, Path], None]] = {
    "deleted": _deleted,
    "a soft link": _soft,
    "an external link": _external_link,
    "a group": _as_group,
    "a number": _as_number,
    "virtual": _virtual,
    "null": _null,
    "compressed": _made(compression="gzip", chunks=True),
    "shuffled": _made(shuffle=True, chunks=True),
    "checksummed": _made(fletcher32=True, chunks=True),
    "in another file": _made(external=True, empty=True),
    "claimed, nothing allocated": _made(empty=True),
    "claimed in chunks, nothing allocated": _made(empty=True, chunks=True),
    "10^12 long": _made(shape=_longer, chunks=lambda shape: (1024, *(min(n, 16) for n in shape[1:]))),
    "10^12 long in one piece": _made(shape=_longer),
    "in huge chunks": _made(empty=True, shape=lambda _: (1 << 20, 64), chunks=(1 << 20, 64)),
    "shorter": _made(shape=lambda shape: tuple(max(0, n - 1) for n in shape)),
    "empty": _made(shape=lambda shape: tuple(0 for _ in shape)),
    "of one dimension more": _made(shape=lambda shape: (*shape, 1)),
    "of doubles": _made(dtype="f8"),
    "of bytes": _made(dtype="u1"),
    "big-endian": _made(dtype=">i2"),
    "of texts": _made(dtype=h5py.string_dtype("utf-8")),
    "of fixed texts": _made(dtype="S8"),
    "of lists": _made(dtype=h5py.vlen_dtype(np.int32)),
    "of records": _made(dtype=np.dtype([("a", "f4"), ("b", "S3")])),
    "of references": _made(dtype=h5py.ref_dtype),
    "of complex numbers": _made(dtype="c8"),
}

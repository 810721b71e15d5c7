"""Directions in the channels of a layer, as units of their own: probes, class heads, CAVs, sparse autoencoders.

Every module in this folder is a kind of file, with

- `HELP`: one line, the name of the format and how a file of it is recognized;
- `claim(contents) -> bool`: whether a file has this format; no two kinds claim the same file;
- `read(contents) -> Directions`: the readout, with the decoder if the format has one. Raises ValueError, whose text
  becomes part of the error, for a file that it cannot read.

Importing this package loads no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from patchmine.errors import ModelError, RequestError
from patchmine.plugins import Kinds

if TYPE_CHECKING:
    from patchmine.readouts._check import Directions
    from patchmine.readouts._contents import Contents
    from patchmine.readouts._readout import Readout as Readout

FOLDER = "directions"
"""The folder of an index that keeps its readouts, each in a safetensors file named by its digest."""

RESERVED = ("cls", "reg")
"""Names that mean tokens of the layer itself."""

_NAME = re.compile(r"(?!\d+$)\w[\w.-]*")


class Kind(Protocol):
    """The contract of a module of this package."""

    HELP: str

    def claim(self, contents: Contents) -> bool: ...
    def read(self, contents: Contents) -> Directions: ...


kinds: Kinds[Kind] = Kinds("patchmine.readouts", needs=("claim", "read"))


@dataclass(frozen=True)
class Asked:
    """One `--directions LAYER@NAME=FILE`."""

    base: str
    name: str
    file: Path

    @property
    def layer(self) -> str:
        """The virtual layer."""
        return f"{self.base}@{self.name}"


def asked(words: Sequence[str]) -> list[Asked]:
    """What the values of `--directions` mean. Raises RequestError for a wrong one, and for a file that is not there."""
    found: list[Asked] = []
    for word in words:
        layer, equals, file = word.partition("=")
        base, mark, name = layer.rpartition("@")
        if not (equals and mark and base and name and file):
            raise RequestError(f"--directions {word!r} is not LAYER@NAME=FILE, as in 'blocks.6@sae=sae.safetensors'")
        if name in RESERVED:
            raise RequestError(f"--directions {word!r}: {base}@{name} means tokens of the layer: choose another name")
        if not _NAME.fullmatch(name):
            raise RequestError(
                f"--directions {word!r}: {name!r} is not a name for directions: use letters, digits, '_', '.' and '-'"
            )
        if layer in {other.layer for other in found}:
            raise RequestError(f"--directions {word!r}: {layer} is given twice: choose another name for one of them")
        if not Path(file).exists():
            raise RequestError(f"--directions {word!r}: file {file!r} not found")
        found.append(Asked(base, name, Path(file)))
    return found


def keep(directory: Path, readouts: Sequence[Readout]) -> None:
    """Put readouts into the folder of an index. Raises OSError."""
    from patchmine.readouts import _kept

    for readout in readouts:
        _kept.keep(directory, readout)


def forget(directory: Path, but: Sequence[str]) -> None:
    """Remove the readouts of an earlier job from an index: all but those of these digests. Raises OSError."""
    for file in (directory / FOLDER).glob("*.safetensors"):
        if file.stem not in but:
            file.unlink()


def files(directory: Path, digests: Iterable[str]) -> dict[str, bytes]:
    """The files of these readouts of an index, by their path in it. Raises OSError."""
    names = [f"{FOLDER}/{digest}.safetensors" for digest in digests]
    return {name: (directory / name).read_bytes() for name in names}


def kept(directory: Path, layer: str, digest: str) -> Readout:
    """The readout that an index keeps. Raises StoreError if it is missing, damaged, or not that of this digest."""
    from patchmine.readouts import _kept

    return _kept.read(directory, layer, digest)


def load(file: Path, threshold: float | None = None) -> tuple[Readout, tuple[str, ...]]:
    """The readout in a file, and the names of its units if there are any.

    `threshold` is for a file of a format that needs one and does not hold it. The names stand in a text file of the
    same name with the ending `.txt`, one in a line.

    Raises ModelError for a file that is damaged, of an unknown format, contains NaN, or fails the decoder-row check.
    """
    from patchmine.readouts._check import checked
    from patchmine.readouts._contents import opened

    contents = opened(file, threshold)
    kind = next((kind for kind in kinds if kind.claim(contents)), None)
    if kind is None:
        held = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in list(contents.tensors.items())[:4])
        raise ModelError(
            f"the format of directions {str(file)!r} is unknown: it holds {held or 'no tensor'}; known: "
            + "; ".join(kinds.help(name) for name in kinds.names)
        )
    try:
        readout = checked(kind.read(contents))
    except ValueError as problem:
        raise ModelError(f"directions {str(file)!r} cannot be used: {problem}") from None
    return readout, contents.names(readout.units)

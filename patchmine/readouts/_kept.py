"""The readouts of an index, kept in it: no question needs the user's file again."""

from __future__ import annotations

from pathlib import Path

from patchmine.buckets.copies import bring
from patchmine.errors import StoreError
from patchmine.readouts import FOLDER
from patchmine.readouts._readout import Readout
from patchmine.system.atomic import write_atomically


def keep(directory: Path, readout: Readout) -> None:
    """Put a readout into an index. Raises OSError."""
    from safetensors.torch import save

    file = _file(directory, readout.digest)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in readout.tensors().items()}
        write_atomically(file, [save(tensors, readout.settings())])


def read(directory: Path, layer: str, digest: str) -> Readout:
    """The readout of a virtual layer of an index. Raises StoreError if it is missing, damaged, or another one."""
    from safetensors import SafetensorError, safe_open

    file = _file(directory, digest)
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
            found = Readout.of(tensors, opened.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        reason = "is missing" if not file.is_file() else f"is damaged: {str(error).splitlines()[0]}"
        raise StoreError(f"{file}, the directions of {layer}, {reason}; build the index again with --fresh") from None
    if found.digest != digest:
        raise StoreError(f"{file} does not hold the directions of {layer}; build the index again with --fresh")
    return found


def _file(directory: Path, digest: str) -> Path:
    file = directory / FOLDER / f"{digest}.safetensors"
    bring(file)
    return file

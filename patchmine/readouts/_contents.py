"""What a file of directions holds: tensors and settings. Safetensors and NumPy first; of pickles only plain data."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchmine.errors import ModelError
from patchmine.system.untrusted_json import Misfit, parse, read_bounded

_CONFIGS = ("cfg.json", "config.json")
_INSIDE = ("sae_weights.safetensors", "sae.pt", "ae.pt", "weights.pt")
"""The file of a folder that holds the weights."""

_STATE = ("state_dict", "model_state_dict", "model")
_SETTINGS = ("cfg", "config")
_CONFIG_BYTES = 1 << 20
_PICKLE, _GZIP = b"\x80", b"\x1f\x8b"  # how such files begin
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError)


@dataclass(frozen=True)
class Contents:
    """The tensors of a file by name, and its settings.

    `settings` are those inside the file, else those of `cfg.json` or `config.json` beside it. `header` is the JSON on
    the first line of a saev checkpoint. `array` says that the file is one array without a name.
    """

    file: Path
    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    threshold: float | None = None
    header: dict[str, Any] = field(default_factory=dict)
    array: bool = False

    def has(self, *names: str) -> bool:
        return all(name in self.tensors for name in names)

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32. Raises ValueError if it is missing."""
        if name not in self.tensors:
            raise ValueError(f"it lacks {name}")
        return self.tensors[name].detach().float().contiguous()

    def matrix(self, name: str) -> Tensor:
        """A tensor of two dimensions. Raises ValueError for any other."""
        found = self.tensor(name)
        if found.ndim != 2:
            raise ValueError(f"its {name} has shape {list(found.shape)}, not two dimensions")
        return found

    def vector(self, name: str, length: int) -> Tensor:
        """A tensor of one dimension, zeros if it is missing. Raises ValueError for another length."""
        found = self.tensor(name) if name in self.tensors else torch.zeros(length)
        if found.numel() == 1:
            found = found.reshape(1).repeat(length)
        if tuple(found.shape) != (length,):
            raise ValueError(f"its {name} has shape {list(found.shape)}, not [{length}]")
        return found

    def number(self, *names: str) -> float | None:
        """A number among the tensors or the settings, by the first name that is there."""
        for name in names:
            found = self.tensors.get(name, self.settings.get(name))
            if isinstance(found, Tensor) and found.numel() == 1:
                return float(found)
            if isinstance(found, int | float) and not isinstance(found, bool):
                return float(found)
        return None

    def word(self, *names: str) -> str:
        """A setting as a lower-case word without signs: `BatchTopK` and `batch_topk` are `batchtopk`; else empty."""
        for name in names:
            found = self.settings.get(name)
            if isinstance(found, str):
                return "".join(filter(str.isalnum, found.lower()))
        return ""

    def above(self, *names: str) -> float:
        """The threshold of a batch-top-k autoencoder, or the one that the user gave. Raises ValueError without any."""
        own = self.number(*names)
        if own is not None and own >= 0:
            return own
        if self.threshold is None:
            raise ValueError(
                "it is a batch-top-k autoencoder, and its file does not hold the threshold above which its latents "
                "count: give --threshold T"
            )
        return self.threshold

    def names(self, units: int) -> tuple[str, ...]:
        """The names in the text file beside the file; none without it. Raises ModelError for another number."""
        listed = self.file.with_suffix(".txt")
        if listed == self.file or not listed.is_file():
            return ()
        names = tuple(line.strip() for line in listed.read_text("utf-8", "replace").splitlines() if line.strip())
        if len(names) != units:
            raise ModelError(f"{str(listed)!r} names {len(names)} units, but {str(self.file)!r} has {units}")
        return names


def opened(file: Path, threshold: float | None) -> Contents:
    """The contents of a file, or of the weights in a folder. Raises ModelError if it cannot be read."""
    if file.is_dir():
        inside = [file / name for name in _INSIDE if (file / name).is_file()]
        if not inside:
            raise ModelError(f"folder {str(file)!r} holds none of {', '.join(_INSIDE)}: name the file of the weights")
        file = inside[0]
    beside = next((_json(file.parent / name) for name in _CONFIGS if (file.parent / name).is_file()), {})
    with file.open("rb") as stream:
        head = stream.read(9)
    if head[:6] == b"\x93NUMPY":
        return Contents(file, {"weight": _array(file)}, {}, threshold, array=True)
    if file.suffix == ".safetensors" or (head[8:] == b"{" and head[4:8] == b"\0" * 4):
        tensors, settings = _safetensors(file)
        return Contents(file, tensors, beside | settings, threshold)
    if head[:1] == b"{":
        with file.open("rb") as stream:
            header = _parsed(file, stream.readline(_CONFIG_BYTES))
            document = _pickle(file, stream)
        return Contents(file, _tensors(document), {}, threshold, header)
    with file.open("rb") as stream:
        document = _pickle(file, stream)
    return Contents(file, _tensors(document), beside | _settings(document), threshold)


def _array(file: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(file, allow_pickle=False).astype(np.float32))
    except (ValueError, OSError, EOFError, TypeError) as error:
        raise ModelError(f"directions {str(file)!r} cannot be read: {_line(error)}") from None


def _safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, and the settings in the metadata, each of which may be JSON."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened_file:
            tensors = {name: opened_file.get_tensor(name) for name in opened_file.keys()}  # noqa: SIM118 - not a mapping
            metadata = opened_file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"directions {str(file)!r} are not a safetensors file: {_line(error)}") from None
    settings: dict[str, Any] = {}
    for name, text in metadata.items():
        try:
            settings[name] = json.loads(text)
        except ValueError:
            settings[name] = text
    return tensors, settings | _settings(settings)


def _pickle(file: Path, stream: Any) -> object:
    """The document in a pickle of plain data, from where the stream is."""
    start = stream.tell()
    head = stream.read(2)
    stream.seek(start)
    try:
        return torch.load(stream, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, *_DAMAGE) as error:
        code = isinstance(error, pickle.UnpicklingError) and " global" in str(error).lower()
        if not code and head[:1] != _PICKLE and head[:2] != _GZIP:
            raise ModelError(
                f"directions {str(file)!r} cannot be read: {_line(error)}; give .npy, safetensors or a state dict"
            ) from None
    raise ModelError(
        f"directions {str(file)!r} are a pickle with more than tensors and plain settings, which can run any code: if "
        "you trust it, export it with scripts/export_directions.py FILE OUT.safetensors and give OUT.safetensors"
    )


def _tensors(document: object) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name: those of its state dict, and those beside it."""
    if isinstance(document, Tensor):
        return {"weight": document}
    found: dict[str, Tensor] = {}
    if isinstance(document, Mapping):
        for part in (document, *(document[name] for name in _STATE if isinstance(document.get(name), Mapping))):
            for name, value in part.items():
                if isinstance(value, Tensor):
                    found[str(name)] = value
                elif isinstance(value, int | float) and not isinstance(value, bool):
                    found[str(name)] = torch.tensor(float(value))
    return found


def _settings(document: object) -> dict[str, Any]:
    """The settings that lie in a document under one of their names."""
    for name in _SETTINGS:
        if isinstance(document, Mapping) and isinstance(document.get(name), Mapping):
            return dict(document[name])
    return {}


def _json(file: Path) -> dict[str, Any]:
    try:
        return parse(read_bounded(file, _CONFIG_BYTES)).data
    except (Misfit, OSError) as error:
        raise ModelError(f"{str(file)!r} cannot be read: {_line(error)}") from None


def _parsed(file: Path, line: bytes) -> dict[str, Any]:
    try:
        return parse(line).data
    except Misfit as misfit:
        raise ModelError(f"directions {str(file)!r} cannot be read: the first line is not JSON: {misfit}") from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]

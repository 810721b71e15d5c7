"""Exports a sparse autoencoder that was pickled with its code: python scripts/export_directions.py FILE OUT.safetensors

Unpickling runs the code in FILE, so do it only with a file that you trust, where its library is installed. What stays
are the tensors of its state dict, and its settings as JSON in the metadata.
"""

from __future__ import annotations

import gzip
import json
import pickle
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


def main(file: Path, out: Path) -> None:
    document = _unpickled(file)
    settings: Any = {}
    if isinstance(document, Mapping):
        settings = next((document[name] for name in ("cfg", "config") if name in document), {})
        numbers = {name: value for name, value in document.items() if isinstance(value, int | float | Tensor)}
        document = next((document[n] for n in ("state_dict", "model_state_dict", "model") if n in document), document)
    else:
        numbers = {}
    state = document.state_dict() if isinstance(document, nn.Module) else document
    tensors = {name: value for name, value in {**numbers, **state}.items() if isinstance(value, Tensor)}
    described = asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else settings
    plain = described if isinstance(described, Mapping) else vars(described)
    plain = {**plain, **{name: value for name, value in numbers.items() if not isinstance(value, Tensor)}}
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        out,
        {name: json.dumps(value) for name, value in plain.items() if isinstance(value, str | int | float | bool)},
    )
    print(f"{out}: {', '.join(f'{name} {list(value.shape)}' for name, value in tensors.items())}")


def _unpickled(file: Path) -> Any:
    if file.suffix == ".gz":
        with gzip.open(file) as opened:
            return pickle.load(opened)
    try:
        return torch.load(file, map_location="cpu", weights_only=False)
    except (RuntimeError, pickle.UnpicklingError):
        with file.open("rb") as opened:
            return pickle.load(opened)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

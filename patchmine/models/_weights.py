"""Load weights from a file into a module, without ever unpickling code."""

from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from patchmine.errors import ModelError

# Raised by torch's restricted unpickler for a file that is not a checkpoint, depending on its first bytes.
DAMAGE = (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, struct.error)


_FORCE, _FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def never_unpickling() -> Iterator[None]:
    """Inside the block, loading a checkpoint gives tensors or raises pickle.UnpicklingError.

    torchvision unpickles files in torch's cache without verifying their checksum, and has no parameter to prevent it.
    torch reads these environment variables at each load.
    """
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NOT)}
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_weights(file: Path) -> Mapping[str, Tensor]:
    """The state dict in a safetensors file or a torch checkpoint (bare, or under `state_dict` or `model`).

    Raises ModelError when the file is missing, damaged, or holds anything but tensors and plain containers.
    """
    if not file.is_file():
        raise ModelError(f"weights file {str(file)!r} not found")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        with never_unpickling():
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{str(file)!r} contains more than tensors and is not loaded, because a pickle can run any code: "
            "save the state dict alone with torch.save(net.state_dict(), FILE)"
        ) from None
    except DAMAGE as error:
        raise ModelError(f"{str(file)!r} cannot be read as weights: {first_line(error)}") from None
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{str(file)!r} is not a state dict: save net.state_dict() instead")
    return OrderedDict((key.removeprefix("module."), value) for key, value in found.items())


def _read_safetensors(file: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{str(file)!r} is not a safetensors file: {error}") from None


def fill(module: nn.Module, state: Mapping[str, Tensor], model: str, origin: str) -> None:
    """Load the state dict strictly. Raises ModelError, which names the first mismatch of each kind."""
    own = module.state_dict()
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    wrong = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or wrong:
        faults = [
            *(f"{key} is missing" for key in missing[:1]),
            *(f"{key} is unexpected" for key in extra[:1]),
            *(f"{key} has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}" for key in wrong[:1]),
        ]
        count = len(missing) + len(extra) + len(wrong)
        raise ModelError(f"the weights in {origin!r} do not fit {model}: {'; '.join(faults)} ({count} in all)")
    module.load_state_dict(dict(state))

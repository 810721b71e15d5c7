"""Load weights from a file into a module, without ever unpickling code."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patchmine.errors import ModelError, nearest
from patchmine.models._checkpoints import BESIDE, Fit, fit, flat
from patchmine.system.printable import remark

# Raised by torch's restricted unpickler for a file that is not a checkpoint, depending on its first bytes.
DAMAGE = (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, struct.error)

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Of the files that trainers keep weights in."""

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


class _StandIn:
    """Takes the place of an object that is no tensor, and ignores all that a pickle does to it."""

    def __new__(cls, *_: object, **__: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def read_weights(file: Path) -> dict[str, Tensor]:
    """Every tensor in a safetensors file or a torch checkpoint, under its dotted name, as `_checkpoints.flat` has it.

    Raises ModelError when the file is missing, damaged, or holds no tensor that can be read without running its code.
    """
    if file.is_dir():
        inside = sorted(entry.name for entry in file.iterdir() if entry.suffix in SUFFIXES)
        raise ModelError(f"{str(file)!r} is a folder: name the file in it{nearest(file.name, inside)}")
    if not file.is_file():
        raise ModelError(f"weights file {str(file)!r} not found")
    found = _read_safetensors(file) if _is_safetensors(file) else dict(flat(_read_checkpoint(file)))
    if not found:
        raise ModelError(
            f"{str(file)!r} is not a state dict: save it with torch.save(net.state_dict(), FILE), or as safetensors"
        )
    return found


def _is_safetensors(file: Path) -> bool:
    """Whether the file begins as safetensors do, whatever its name: a length, then JSON."""
    with file.open("rb") as opened:
        head = opened.read(9)
    return file.suffix == ".safetensors" or (head[8:] == b"{" and head[4:8] == b"\0" * 4)


def _read_checkpoint(file: Path) -> object:
    """The tensors and plain containers of a torch checkpoint. Objects of other classes become stand-ins."""
    try:
        with never_unpickling():
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:
                # Trainers keep their arguments beside the weights. Stand-ins let the tensors be read, and run nothing.
                names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
                stand_ins: list[Any] = [(type("StandIn", (_StandIn,), {}), name) for name in names]
                with torch.serialization.safe_globals(stand_ins):
                    found = torch.load(file, map_location="cpu", weights_only=True)
                if not isinstance(found, Mapping) or not any(flat(found)):
                    raise
                return found
    except (pickle.UnpicklingError, AttributeError):  # torch before 2.6 has neither of the two functions
        raise ModelError(
            f"{str(file)!r} contains more than tensors and is not loaded, because a pickle can run any code: "
            "if you trust it, load it yourself and save the state dict alone with torch.save(net.state_dict(), FILE)"
        ) from None
    except DAMAGE as error:
        reason = first_line(error).partition(". ")[0]
        raise ModelError(
            f"{str(file)!r} cannot be read as weights: {reason}; give one file, made by torch.save or safetensors"
        ) from None


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{str(file)!r} is not a safetensors file: {error}") from None


def fill(module: nn.Module, file: Path, model: str) -> tuple[str, ...]:
    """Load the weights in a file into a module, and return the names of the tensors that the file lacks.

    A head may be missing, or be of another task. Its tensors become NaN, and so does all that depends on them. A remark
    says so, and from where in the file the weights come. Raises ModelError if too little fits, or the file is of a
    larger network; it names the first mismatch of each kind, and what the file holds.
    """
    own = {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
    checkpoint = read_weights(file)
    found = fit(own, checkpoint)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    lacking = tuple(
        name
        for name in found.missing
        # A buffer around the network that the weights are of, such as a mean to subtract, has its value from its code.
        if own[name].is_floating_point() and (name in parameters or name.startswith(found.inner))
    )
    if _strange(found, own, lacking):
        raise _misfit(found, own, file, model, checkpoint)
    absent = {name: torch.full_like(own[name], torch.nan) for name in lacking}
    module.load_state_dict({**found.tensors, **absent}, strict=False)
    _say(found, lacking, file)
    return lacking


def _strange(found: Fit, own: Mapping[str, Tensor], lacking: Sequence[str]) -> bool:
    """Whether a checkpoint is of another network, and not of this one with another head.

    It is if it lacks the first tensor or half of all, or has tensors inside a part of the network that has its own.
    """
    inside = [name.removeprefix(found.inner) for name in own if name.startswith(found.inner)]
    needed = [name for name in inside if name.split(".")[-1] not in BESIDE]
    lost = {name.removeprefix(found.inner) for name in lacking if name.startswith(found.inner)}
    filled = {ancestor for name in needed if name not in lost for ancestor in _ancestors(name)}
    emptied = {ancestor for name in lost for ancestor in _ancestors(name)} - filled
    for name in found.extra:
        ancestors = _ancestors(name)
        beside = ancestors[0] not in filled or emptied.intersection(ancestors)
        if not beside and name.split(".")[-1] not in BESIDE:
            return True
    return not needed or needed[0] in lost or 2 * len(lost) > len(needed)


def _ancestors(name: str) -> list[str]:
    """The names of the modules around a tensor, the outermost first; those of a tensor of the network itself are it."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, max(len(parts), 2))]


def _misfit(
    found: Fit, own: Mapping[str, Tensor], file: Path, model: str, checkpoint: Mapping[str, Tensor]
) -> ModelError:
    gone = [name for name in found.missing if name not in found.differing]
    faults = [
        *(f"{name} is missing" for name in gone[:1]),
        *(f"{name} is unexpected" for name in found.extra[:1]),
        *(f"{name} has shape {shape}, not {tuple(own[name].shape)}" for name, shape in found.differing.items()),
    ]
    count = len(gone) + len(found.extra) + len(found.differing)
    return ModelError(
        f"the weights in {str(file)!r} do not fit {model}: {'; '.join(faults[:3])} ({count} in all); the file holds "
        f"{_list(list(checkpoint))}: build the network that they belong to in a file of your own, "
        "--model FILE.py:FUNCTION"
    )


def _say(found: Fit, lacking: Sequence[str], file: Path) -> None:
    under = [prefix[:-1] for prefix in found.prefixes if prefix]
    said = []
    if under:
        said.append(f"loaded what is under {' and '.join(under)}")
    if found.others:
        others = ", ".join(other[:-1] or "no prefix" for other in found.others)
        said.append(f"what is under {others} fits too, and is left out")
    if lacking:
        said.append(
            f"it lacks {_list(lacking)}"
            + (" in this shape" if any(name in found.differing for name in lacking) else "")
            + ", so the layers after that cannot be indexed"
        )
    if found.extra:
        said.append(f"left out {_list(found.extra)}")
    if said:
        remark(f"{str(file)!r}: {'; '.join(said)}")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

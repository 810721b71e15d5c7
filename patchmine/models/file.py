"""`path/to/file.py:function`: a network of the user's own."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from patchmine.defaults import VIEWS
from patchmine.errors import ModelError, nearest
from patchmine.networks.network import Network, weights_digest
from patchmine.owncode.faults import fault_of, reason, shown
from patchmine.owncode.script import Script
from patchmine.photographs.placement import FILTER_REACH, Preprocessing

CLAIM = ".*[.]py(:.*)?"
CODE = True
HELP = "path/to/file.py:function: your own network; the function returns a torch module or (module, Preprocessing)"

PREPROCESSING = Preprocessing(
    resize=256,
    crop=(224, 224),
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""Used if the function returns no Preprocessing: the one that most ImageNet networks were trained with."""


@dataclass(frozen=True)
class _Ran:
    """A script that has run for one function, the digest of its code then, and the generators after its run."""

    script: Script
    code: str
    states: list[Any]


_ran: dict[tuple[Path, str], _Ran] = {}


def claim(spec: str) -> bool:
    return re.fullmatch(CLAIM, spec) is not None


def check(spec: str) -> None:
    """Raises ModelError for a word without a function, and for a file that is not there."""
    path, colon, _ = spec.rpartition(":")
    if not colon:
        raise ModelError(f"{spec!r} names a file but no function in it: write {spec}:build")
    if not Path(path).is_file():
        raise ModelError(f"model file {path!r} not found")


def load(spec: str, weights: Path | None, pretrained: bool = True) -> Network:  # noqa: ARG001
    import torch

    from patchmine.models._plain import initialize, plain
    from patchmine.models._weights import fill

    path, _, function = spec.rpartition(":")
    built, code = _built(Path(path).absolute(), function, spec)
    returned, preprocessing = built if isinstance(built, tuple) and len(built) == 2 else (built, PREPROCESSING)
    module = plain(returned, spec)
    if not isinstance(preprocessing, Preprocessing):
        raise ModelError(
            f"{spec} must return a torch module or a tuple (module, Preprocessing) with patchmine's Preprocessing, "
            f"not a {type(preprocessing).__name__}"
        )
    preprocessing = _checked(preprocessing, spec)
    initialize(module, torch.zeros(1, 3, *preprocessing.crop))
    lacking = fill(module, weights, spec) if weights is not None else ()
    return Network(spec, module, preprocessing, weights_digest(module), code=code, lacking=lacking)


def _built(file: Path, function: str, spec: str) -> tuple[Any, str]:
    """What the function returns, and the digest of the code that made it. Raises ModelError, whatever that code raises.

    A file runs once, as a module that is imported twice does. Then the function starts with the generators as they were
    after that run, so that it returns the same network again.
    """
    import torch

    ran = _ran.pop((file, function), None)
    script = ran.script if ran and ran.script.digest() == ran.code else Script(file)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # so that an untrained network is the same every time
        try:
            with script.seen():
                again = script.module is not None
                made = _function(script.run(), function, spec)
                if ran and again:
                    for (_, restore), state in zip(_generators(), ran.states, strict=True):
                        restore(state)
                states = [read() for read, _ in _generators()]
                built = made()
        except ModelError:
            raise
        except (Exception, SystemExit) as error:
            raise ModelError(f"{spec} fails: {fault_of(error) or reason(error)}{_advice(error)}") from error
    code = script.digest()
    _ran[file, function] = _Ran(script, code, states)
    return built, code


def _checked(given: Preprocessing, spec: str) -> Preprocessing:
    """The same preprocessing with tuples for lists. Raises ModelError for values that it cannot have."""
    try:
        found = Preprocessing.from_dict(given.as_dict())
        sound = min(*found.crop, *found.std) > 0 and found.interpolation in FILTER_REACH and found.view in VIEWS
    except (TypeError, ValueError, LookupError):
        sound = False
    if not sound or isinstance(given.resize, str):
        raise ModelError(
            f"{spec} returns {given}: give values such as Preprocessing(256, (224, 224), 'bilinear', mean, std), with "
            "three numbers in mean and in std"
        )
    return found


def _generators() -> tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...]:
    """How to read and restore each generator that initializes weights."""
    import numpy as np
    import torch

    return (
        (torch.get_rng_state, torch.set_rng_state),
        (np.random.get_state, np.random.set_state),
        (random.getstate, random.setstate),
    )


def _function(module: ModuleType, name: str, spec: str) -> Callable[[], Any]:
    """The function of that name. Raises ModelError if there is none that can be called without arguments."""
    from torch import nn

    made = getattr(module, name, None)
    if isinstance(made, nn.Module):
        raise ModelError(f"{spec} is a torch module, not a function that returns one: write def build(): return {name}")
    if not callable(made):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ModelError(f"{spec.rpartition(':')[0]!r} has no function {name!r}{nearest(name, functions)}")
    required = ", ".join(_required(made))
    if required:
        code = getattr(inspect.unwrap(made), "__code__", None)
        place = f" in {shown(code.co_filename)}, line {code.co_firstlineno}," if code else ""
        raise ModelError(
            f"{spec} fails: {name}{place} requires arguments ({required}): give them defaults, or name a function "
            "without arguments that calls it"
        )
    return made


def _required(function: Callable[..., Any]) -> list[str]:
    """The arguments without which the function cannot be called."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C do not tell
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is one.empty and one.kind not in variable]


def _advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "; install it where patchmine runs, or put its folder on PYTHONPATH"
    if isinstance(error, SystemExit):
        return "; the file must not exit when it is imported: put that below if __name__ == '__main__'"
    return ""

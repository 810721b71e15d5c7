"""The class that relevance begins at: the network's own prediction, or the label of the photograph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from patchmine.errors import RequestError, nearest
from patchmine.labels.imagenet import class_keys, class_label

if TYPE_CHECKING:
    from patchmine.networks.network import Network

_PREDICTED = "leave out --class-of label, and relevance begins at the predicted class"


def outputs(network: Network, photographs: Iterable[tuple[str, str | None]]) -> list[int]:
    """The network's output for the label of each photograph, given as (path, class).

    A class is found by its name, in upper or lower case, or by its WordNet id. Raises RequestError if the network's
    outputs have no names, a photograph has no class, or the network lacks its class.
    """
    if network.class_names is None:
        raise RequestError(f"--class-of label: {network.name} does not name the classes of its outputs; {_PREDICTED}")
    known = _numbers(network.class_names)
    found = []
    for path, name in photographs:
        if name is None:
            raise RequestError(f"--class-of label: {path!r} has no class; give --labels FILE, or {_PREDICTED}")
        number = known.get(name.casefold())
        if number is None:
            word = class_label(name)
            shown = f"{name!r}" if word == name else f"{name!r} ({word})"
            hint = nearest(name, network.class_names)
            raise RequestError(f"--class-of label: {network.name} has no class {shown} of {path!r}{hint}; {_PREDICTED}")
        found.append(number)
    return found


def _numbers(names: tuple[str, ...]) -> Mapping[str, int]:
    """The output of each class by the words for it that mean no other class."""
    spellings: dict[str, set[int]] = {}
    for number, words in enumerate(zip(names, class_keys(names), strict=True)):
        for word in words:
            spellings.setdefault(word.casefold(), set()).add(number)
    return {word: min(numbers) for word, numbers in spellings.items() if len(numbers) == 1}

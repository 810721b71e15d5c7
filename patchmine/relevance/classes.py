"""The class that relevance begins at: the network's own prediction, or the label of the photograph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
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
        raise RequestError(
            f"--class-of label: {network.name} does not name the classes of its outputs; give --classes FILE, a text "
            f"with the name of each output on a line, or {_PREDICTED}"
        )
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


def named(network: Network, classes: Path | None) -> Network:
    """The network with the names of its outputs from a text file, a name on a line; without a file as it is.

    Raises RequestError for a file that is not such a text, or repeats a name.
    """
    if classes is None:
        return network
    try:
        names = tuple(line.strip() for line in classes.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RequestError(f"--classes {str(classes)!r} cannot be read: {reason}") from None
    twice = next((name for name, count in Counter(map(str.casefold, names)).items() if count > 1), None)
    if twice is not None:
        raise RequestError(f"--classes {str(classes)!r} names {twice!r} twice: give each output a name of its own")
    return replace(network, class_names=names)


def check_count(network: Network, count: int) -> None:
    """Raises RequestError if the network names another number of classes than it has outputs."""
    if network.class_names is not None and len(network.class_names) != count:
        raise RequestError(
            f"--class-of label: {len(network.class_names)} classes are named, but {network.name} has {count} outputs; "
            "give --classes FILE with the name of each output on a line"
        )


def _numbers(names: tuple[str, ...]) -> Mapping[str, int]:
    """The output of each class by its name and the words for it, as far as they mean no other class."""
    spellings: dict[str, set[int]] = {}
    for number, words in enumerate(zip(names, class_keys(names), strict=True)):
        for word in words:
            spellings.setdefault(word.casefold(), set()).add(number)
    found = {word: min(numbers) for word, numbers in spellings.items() if len(numbers) == 1}
    written = Counter(map(str.casefold, names))
    return found | {name.casefold(): number for number, name in enumerate(names) if written[name.casefold()] == 1}

"""Match a word to classes: to a class itself, or to all classes below a WordNet noun."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import RequestError, nearest
from patchmine.labels.wordnet import ancestors, word


def classes_meant(text: str, class_names: Sequence[str], option: str = "--class") -> NDArray[np.bool_]:
    """Whether `text` means each class, bool (classes,): by its name in the source, its label, or a noun above it.

    `goldfish`, `n01443537`, `fish` and `n02512053` all work, in upper or lower case. A word that several classes
    share, such as crane, means all of them. Raises RequestError, with the nearest words, if no class matches.
    """
    if not class_names:
        raise RequestError(f"{option} {text!r} requires classes, and the index has none: index with --labels FILE")
    wanted = _plain(text)
    keys = [{name, *ancestors(name)} for name in class_names]
    called = {key for key in set().union(*keys) if wanted in _forms(key)}  # each key once: most lie above many classes
    meant = np.array([not called.isdisjoint(of_class) for of_class in keys], np.bool_)
    if not meant.any():
        known = {word(key) for of_class in keys for key in of_class}
        raise RequestError(f"the index has no photograph of class {text!r}{nearest(text, known)}")
    return meant


def _forms(key: str) -> set[str]:
    """The accepted spellings of a class or noun: its id, its word, and its word without the parenthesis."""
    return {_plain(key), _plain(word(key)), _plain(word(key).partition(" (")[0])}


def _plain(text: str) -> str:
    return text.casefold().replace("_", " ").strip()

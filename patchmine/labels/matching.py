"""Which classes a word means: a class itself, or all below a WordNet noun."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchmine.errors import RequestError, nearest
from patchmine.labels.wordnet import ancestors, word


def classes_meant(text: str, class_names: Sequence[str], option: str = "--class") -> NDArray[np.bool_]:
    """Which of the classes (bool, classes) are called so: by their name in the source, their label, or one above them.

    `goldfish`, `n01443537`, `fish` and `n02512053` are understood alike, in any case. A word that several classes
    share, such as crane, means all of them. Raises RequestError with the nearest words where there is no such class.
    """
    if not class_names:
        raise RequestError(f"{option} {text!r} needs classes, and the index knows none: index with --labels FILE")
    wanted = _plain(text)
    keys = [{name, *ancestors(name)} for name in class_names]
    called = {key for key in set().union(*keys) if wanted in _forms(key)}  # once a key: most are above many classes
    meant = np.array([not called.isdisjoint(of_class) for of_class in keys], np.bool_)
    if not meant.any():
        known = {word(key) for of_class in keys for key in of_class}
        raise RequestError(f"the index has no photograph of the class {text!r}{nearest(text, known)}")
    return meant


def _forms(key: str) -> set[str]:
    """What may be typed for a class or noun: its id, its word, and that without what tells it from others."""
    return {_plain(key), _plain(word(key)), _plain(word(key).partition(" (")[0])}


def _plain(text: str) -> str:
    return text.casefold().replace("_", " ").strip()

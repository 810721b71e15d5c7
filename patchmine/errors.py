"""Every error that patchmine raises on purpose.

    PatchmineError
    ├── SourceError       the photographs: no folder, no image, a source that disappeared
    │   └── PhotographError   one photograph: cut short, not an image, gone
    ├── ModelError        the network: unknown name, weights that do not fit, no such layer
    │   └── FieldError        a receptive field that cannot be determined
    ├── StoreError        the index: missing, unfinished, damaged, of another job
    │   └── UnreadableError   a file of it that the system withholds: locked, not permitted, on a failing disk
    ├── UnitError         a unit, layer or name that is not in the index
    └── RequestError      an option or argument with an invalid value

A message is one line. It repeats the user's own value and says what to type instead. The command line
prints it and exits with 1; any other exception that reaches the user is a bug in patchmine.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class PatchmineError(Exception):
    """The base class: catch this to catch every error that patchmine raises on purpose."""


class SourceError(PatchmineError):
    """The source of photographs cannot be read."""


class PhotographError(SourceError):
    """One photograph cannot be read or decoded. The message gives the reason, without the path."""


class ModelError(PatchmineError):
    """The network cannot be loaded, or the layer is unknown."""


class FieldError(ModelError):
    """The receptive field of a layer cannot be determined."""


class StoreError(PatchmineError):
    """The index is missing, unfinished, damaged, or belongs to another job."""


class UnreadableError(StoreError):
    """The system withholds a file of the index, which may be whole: it is locked, or its disk fails."""


class UnitError(PatchmineError):
    """The unit, layer or name is not in the index."""


class RequestError(PatchmineError):
    """An option or argument has an invalid value."""


def nearest(wanted: str, known: Iterable[str], count: int = 3) -> str:
    """A clause that names the known words nearest to `wanted`, for the end of an error message.

    Empty when nothing is known, so that callers can append it without a check.
    """
    words = sorted(set(known))
    if not words:
        return ""
    lowered = {word.lower(): word for word in reversed(words)}
    close = [lowered[w] for w in get_close_matches(wanted.lower(), lowered, n=count, cutoff=0.5)]
    if not close:
        shown = words if len(words) <= 12 else [*words[:10], f"... ({len(words)} in all)"]
        return f"; known: {', '.join(shown)}"
    return f"; did you mean {' or '.join(close)}?"

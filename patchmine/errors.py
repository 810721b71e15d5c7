"""Every error that patchmine raises on purpose.

    PatchmineError
    ├── SourceError       the photographs: no folder, no image, a source that went away
    │   └── PhotographError   one photograph: cut short, not an image, gone
    ├── ModelError        the network: unknown name, weights that do not fit, no such layer
    │   └── FieldError        a receptive field that cannot be determined
    ├── StoreError        the index: missing, unfinished, damaged, of another job
    ├── UnitError         a unit, layer or name that is not in the index
    └── RequestError      a value on the command line that cannot be served

A message is one line. It repeats the user's own value and says what to type instead. The command line
prints it and exits with 1; anything else that reaches the user is a bug of patchmine.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class PatchmineError(Exception):
    """The root: catch this to catch everything patchmine refuses."""


class SourceError(PatchmineError):
    """The source of photographs cannot be read."""


class PhotographError(SourceError):
    """One photograph cannot be decoded; the message is the reason alone, without its path."""


class ModelError(PatchmineError):
    """The network cannot be loaded, or has no such layer."""


class FieldError(ModelError):
    """The receptive field of a layer cannot be determined."""


class StoreError(PatchmineError):
    """The index is missing, unfinished, damaged, or belongs to another job."""


class UnitError(PatchmineError):
    """No unit of that name."""


class RequestError(PatchmineError):
    """A value that cannot be served."""


def nearest(wanted: str, known: Iterable[str], count: int = 3) -> str:
    """A clause naming the known words nearest to `wanted`, for the end of an error message.

    Empty when nothing is known, so that it can be appended without a test.
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

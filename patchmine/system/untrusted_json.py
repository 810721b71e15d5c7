"""Reads JSON from untrusted sources: bounded in size, with every value checked for its type and range."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any, NoReturn

TEXT = 4096
"""The longest text in characters, and the longest path in bytes: no operating system opens a longer one."""


class Misfit(ValueError):  # noqa: N818 - no error of patchmine's tree
    """A clause that says what is wrong with a document. Callers that know the file turn it into a StoreError."""


def read_bounded(file: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes. Raises Misfit for anything else, before reading it.

    Raises FileNotFoundError if the file is missing.
    """
    status = file.stat()
    if not S_ISREG(status.st_mode):
        raise Misfit("it is not a regular file")
    if status.st_size > most:
        raise Misfit(f"it has {status.st_size} bytes, more than {most}")
    with file.open("rb") as opened:
        return opened.read(most)


def parse(data: bytes) -> Part:
    """The document, which must be an object. Raises Misfit."""
    try:
        return Part(json.loads(data, parse_constant=_refuse_constant, parse_float=_finite))
    except RecursionError:
        raise Misfit("it is nested too deeply") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number with thousands of digits
        raise Misfit(" ".join(str(error).split())[:200]) from None


def parse_list(data: bytes) -> list[Part]:
    """The objects in a document that is a list. Raises Misfit."""
    return parse(b'{"document":' + data + b"}").parts("document")


def _finite(word: str) -> float:
    number = float(word)
    return number if math.isfinite(number) else _refuse_constant(word)


def _refuse_constant(word: str) -> NoReturn:
    raise Misfit(f"{word} is not a number that JSON can hold")


class Part:
    """An object in a document. Each method returns the value under a key, or raises a Misfit that says where it is."""

    def __init__(self, data: Any, place: str = "") -> None:
        if not isinstance(data, dict):
            raise Misfit(f"{place or 'the document'} is {_shown(data)}, not an object")
        self.data: dict[str, Any] = data
        self.place = place

    def whole(self, key: str, low: int, high: int) -> int:
        return _whole(self._value(key), self._at(key), low, high)

    def number(self, key: str, low: float, high: float) -> float:
        return _number(self._value(key), self._at(key), low, high)

    def truth(self, key: str) -> bool:
        value = self._value(key)
        if not isinstance(value, bool):
            raise Misfit(f"{self._at(key)} is {_shown(value)}, not true or false")
        return value

    def text(self, key: str, most: int = TEXT) -> str:
        """A text that is not empty and holds no NUL: no name and no path contains one."""
        return _text(self._value(key), self._at(key), most)

    def word(self, key: str, known: Sequence[str]) -> str:
        value = self._value(key)
        if value not in known:
            raise Misfit(f"{self._at(key)} is {_shown(value)}, not one of {', '.join(known)}")
        return str(value)

    def wholes(self, key: str, count: int, low: int, high: int) -> tuple[int, ...]:
        values = self._list(key, count)
        return tuple(_whole(value, f"{self._at(key)}[{i}]", low, high) for i, value in enumerate(values))

    def numbers(self, key: str, count: int, low: float, high: float) -> tuple[float, ...]:
        values = self._list(key, count)
        return tuple(_number(value, f"{self._at(key)}[{i}]", low, high) for i, value in enumerate(values))

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(_text(value, f"{self._at(key)}[{i}]", TEXT) for i, value in enumerate(self._list(key)))

    def part(self, key: str) -> Part:
        return Part(self._value(key), self._at(key))

    def parts(self, key: str) -> list[Part]:
        return [Part(value, f"{self._at(key)}[{i}]") for i, value in enumerate(self._list(key))]

    def given(self, key: str) -> bool:
        """Whether the key has a value other than null."""
        return self._value(key) is not None

    def pairs(self, key: str, count: int, low: int, high: int) -> None:
        """Check a list of `count` half-open intervals within [low, high]."""
        for i, pair in enumerate(self._list(key, count)):
            place = f"{self._at(key)}[{i}]"
            if not isinstance(pair, list) or len(pair) != 2:
                raise Misfit(f"{place} is {_shown(pair)}, not a pair")
            start = _whole(pair[0], place, low, high)
            _whole(pair[1], place, start, high)

    def _value(self, key: str) -> Any:
        if key not in self.data:
            raise Misfit(f"{self._at(key)} is missing")
        return self.data[key]

    def _list(self, key: str, count: int | None = None) -> list[Any]:
        value = self._value(key)
        if not isinstance(value, list) or (count is not None and len(value) != count):
            raise Misfit(f"{self._at(key)} is {_shown(value)}, not a list" + (f" of length {count}" if count else ""))
        return value

    def _at(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key


def _whole(value: Any, place: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Misfit(f"{place} is {_shown(value)}, not a whole number from {low} to {high}")
    return value


def _number(value: Any, place: str, low: float, high: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise Misfit(f"{place} is {_shown(value)}, not a number from {low:g} to {high:g}")
    return value


def _text(value: Any, place: str, most: int) -> str:
    if not isinstance(value, str) or not value or "\0" in value or len(value) > most:
        raise Misfit(f"{place} is {_shown(value)}, not a text of 1 to {most} characters")
    return value


def _shown(value: Any) -> str:
    """A value for a message: the number or word itself, or else the kind of value."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of length {len(value)}"
    text = "null" if value is None else repr(value) if not isinstance(value, int) or abs(value) < 1e20 else "huge"
    return text if len(text) <= 40 else text[:37] + "..."

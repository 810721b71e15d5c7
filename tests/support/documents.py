"""Reads the documentation: its fenced blocks, and the command lines in them and in running text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

SHELLS = ("sh", "console", "bash")

_SHELL = (">", "|", "&&", ";")

_FENCE = re.compile(r"^( *)```(\S*)(.*?)\n(.*?)^\1```\s*$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(patchmine [^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what follows the language on the fence, and its text without the indent."""

    language: str
    attributes: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that the block is the text of, from `title="NAME"` on its fence."""
        found = re.search(r'title="([^"]+)"', self.attributes)
        return found[1] if found else None


@dataclass(frozen=True)
class Step:
    """One command of a console block and the output that the page shows, empty where it shows none."""

    words: tuple[str, ...]
    output: str


def pages() -> list[Path]:
    """Every Markdown file that a reader meets."""
    return [*sorted(ROOT.glob("*.md")), ROOT / "data" / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        indent, language, attributes, body = match.groups()
        lines = [line.removeprefix(indent) for line in body.splitlines()]
        found.append(Block(language, attributes, "\n".join(lines) + "\n", text.count("\n", 0, match.start()) + 1))
    return found


def steps(block: Block) -> Iterator[Step]:
    """The commands of a console block, each with its output."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, output = _joined(part).split("\n", 1)
        yield Step(tuple(shlex.split(command, comments=True)), output)


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of every `patchmine` line in the shell blocks of a page, and in its indented blocks."""
    for block in [block for block in blocks(text) if block.language in SHELLS]:
        for line in _joined(block.text).splitlines():
            yield from _patchmine(line)
    for line in _FENCE.sub("", text).splitlines():
        if line.startswith("    "):
            yield from _patchmine(line)


def mentions(text: str) -> Iterator[list[str]]:
    """The words of every command in running text that starts with `patchmine`."""
    for match in _INLINE.finditer(_FENCE.sub("", text)):
        yield shlex.split(match[1].replace("\n", " "))[1:]


def _patchmine(line: str) -> Iterator[list[str]]:
    found = re.match(r"\s*(?:\$ )?patchmine\s+(\S.*)", line)
    if found and "[OPTIONS]" not in line:  # a usage line of the reference
        yield list(takewhile(lambda word: word not in _SHELL, shlex.split(found[1], comments=True)))


def _joined(text: str) -> str:
    """The text with continued lines put together."""
    return re.sub(r"\\\n\s*(?:> )?", "", text)

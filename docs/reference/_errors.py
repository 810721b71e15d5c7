"""Writes the tree and the messages in errors.md again, as the code has them: python docs/reference/_errors.py

A test compares the page with what this would write.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

import patchmine
from patchmine import errors
from patchmine.cli import app

PAGE = Path(__file__).with_name("errors.md")
COMMAND = "python docs/reference/_errors.py"

_TREE = re.compile(r"(?<=```text\n).*?(?=```)", re.DOTALL)
_BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)


def page() -> str:
    """The page with today's messages. Runs in the working directory, which has to hold `shapes.patchmine`."""
    text = _TREE.sub(lambda _: _tree(), PAGE.read_text("utf-8"), count=1)
    return _BLOCK.sub(lambda block: "".join(_answered(block[0])), text)


def _tree() -> str:
    """The paragraph of the module's docstring that draws the tree."""
    drawn = next(part for part in (errors.__doc__ or "").split("\n\n") if "├── " in part)
    return textwrap.dedent(drawn) + "\n"


def _answered(block: str) -> Iterator[str]:
    """The commands of a block, each followed by its message."""
    for line in block.splitlines():
        if line.startswith("$ "):
            program, *words = shlex.split(line.removeprefix("$ "))
            yield f"{line}\n"
            if program == "mkdir":
                Path(words[-1]).mkdir(parents=True)
            else:
                yield CliRunner().invoke(app, words).stderr.replace(str(Path.cwd()), "...")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        patchmine.build_index("shapes:48", "shapes.patchmine", model="shapes", shard_size=12, keep=10)
        PAGE.write_text(page(), "utf-8")
        os.chdir("/")

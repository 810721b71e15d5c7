"""Writes cli.md beside it from the commands themselves: python docs/reference/_cli.py

A test compares the page with what this would write. Nothing on it depends on the terminal's width, nor on
the machine, except for plug-ins that add kinds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.main import get_command

from patchmine.cli import app
from patchmine.cli.options import with_kinds

PAGE = Path(__file__).with_name("cli.md")
COMMAND = "python docs/reference/_cli.py"

INTRODUCTION = f"""\
<!-- Generated from the commands: do not edit. To write it again: {COMMAND} -->

# Command line

`patchmine COMMAND --help` prints what stands here for one command. Answers go to stdout, progress and messages to
stderr; with `--json` stdout holds exactly one JSON document, described in [JSON](json.md).

[Exit codes](errors.md#exit-codes): 0 done, 1 an error, 2 wrong usage, 130 interrupted.

A command that reads an index finds it by `-i DIR`, else by the environment's `PATCHMINE_INDEX`, else it takes the only
`*.patchmine` in the working directory.
"""

_KINDS = {int: "INTEGER", float: "FLOAT", str: "TEXT", Path: "PATH"}
_EXAMPLE = re.compile(r"Example: `([^`]+)`")


def page() -> str:
    """The whole page."""
    group = get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    blocks = [
        INTRODUCTION,
        _table(("Command", "Does"), [(f"[`{n}`](#patchmine-{n})", _first(c.help)) for n, c in commands.items()]),
        "## Options of every command\n",
        _options(group.params, {}),
        *(block for name, command in commands.items() for block in _command(name, command)),
    ]
    return "\n".join(blocks)


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if not p.opts[0].startswith("-")]
    options = [p for p in command.params if p.opts[0].startswith("-")]
    kinds = get_type_hints(command.callback)
    words = [_spelled(option) for option in options if option.required]
    words += ["[OPTIONS]", *(argument.metavar for argument in arguments)]
    yield f"## patchmine {name}\n"
    yield f"```text\npatchmine {name} {' '.join(words)}\n```\n"
    for paragraph in (command.help or "").split("\n\n"):
        example = _EXAMPLE.fullmatch(paragraph.strip())
        yield f"```sh\n{example[1]}\n```\n" if example else f"{paragraph.strip()}\n"
    if arguments:
        yield _table(("Argument", "Meaning"), [(f"`{a.metavar}`", _escaped(a.help)) for a in arguments])
    if options:
        yield _options(options, kinds)


def _options(options: Any, kinds: dict[str, Any]) -> str:
    rows = [
        (_code(option, kinds.get(option.name)), _escaped(option.help), _default(option))
        for option in options
        if not option.hidden
    ]
    return _table(("Option", "Meaning", "Default"), rows)


def _spelled(option: Any) -> str:
    return f"{option.opts[0]} {option.metavar}"


def _code(option: Any, kind: Any) -> str:
    """The option as it is typed: each of its names, and a word for its value."""
    *others, last = option.opts
    if kind is not None and not option.is_flag:
        last = f"{last} {option.metavar or _KINDS[next(iter(get_args(kind)), kind)]}"
    return ", ".join(f"`{word}`" for word in (*others, last))


def _default(option: Any) -> str:
    if option.required:
        return "*required*"
    if isinstance(option.show_default, str):
        return option.show_default
    if option.is_flag or not option.show_default or option.default is None:
        return ""
    return f"`{option.default}`"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _first(text: str | None) -> str:
    """The first paragraph, on one line."""
    return _in_cell(" ".join((text or "").split("\n\n")[0].split()))


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|")


def _escaped(text: str | None) -> str:
    """Plain text as Markdown that reads the same; what stands between backquotes stays code."""
    parts = with_kinds(text or "").split("`")
    for number in range(0, len(parts), 2):
        parts[number] = re.sub(r"([\\*_<>\[\]{}])", r"\\\1", parts[number])
    return _in_cell("`".join(parts))


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

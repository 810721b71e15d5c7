"""Every command line in the documentation parses with the parser of its own command, options included."""

from __future__ import annotations

import re

import pytest
import typer

from patchmine.cli import app
from tests.support.documents import ROOT, command_lines, mentions, pages

GROUP = typer.main.get_command(app)
UsageError = typer.BadParameter.__bases__[0]  # Typer's own or click's, as the version of Typer has it
PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]


def parse(words: list[str]) -> None:
    """Parse a line without running it. Raises UsageError where the command would refuse it."""
    with GROUP.context_class(GROUP, info_name="patchmine") as context:
        if words[0].startswith("-"):
            # An option of patchmine itself. Parsing it would carry it out: --install-completion changes the shell.
            if words[0] not in {name for option in GROUP.get_params(context) for name in option.opts}:
                raise UsageError(f"no such option: {words[0]}")
            return
        name, command, rest = GROUP.resolve_command(context, list(words))
        assert command is not None
        with command.make_context(name, rest, parent=context):
            pass


RIGHT = [page for page in PAGES if page.values[0].name != "errors.md"]
"""Pages whose commands are right; test_docs runs those of the other, for what they are told."""


@pytest.mark.parametrize("page", RIGHT)
def test_every_command_line_parses(page):
    for words in command_lines(page.read_text("utf-8")):
        taken(words)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_running_text_has_options_that_exist(page):
    for words in mentions(page.read_text("utf-8")):
        if re.fullmatch(r"[a-z]+", words[0]):  # not a placeholder such as `patchmine COMMAND --help`
            taken(words, whole=False)


def taken(words: list[str], whole: bool = True) -> None:
    """Fail with the line where it does not parse; what a mention in a sentence leaves out may be missing."""
    try:
        parse(words)
    except typer.Exit:
        pass  # COMMAND --help
    except UsageError as error:
        if whole or type(error).__name__ != "MissingParameter":
            pytest.fail(f"patchmine {' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize(
    "line",
    [
        ["top", "--unitt", "blocks.6:33"],  # a misspelt option
        ["top"],  # what the command needs is missing
        ["top", "--unit", "blocks.6:33", "-k", "many"],
        ["--install-completions"],
        ["tpo", "--unit", "blocks.6:33"],
        ["top", "--unit", "blocks.6:33", "photographs/"],  # a word too many
        ["sheet", "--unit", "blocks.6:33", "-o"],
    ],
)
def test_a_line_that_patchmine_would_refuse_fails(line):
    with pytest.raises(UsageError):
        parse(line)


def test_the_documentation_holds_commands():
    assert sum(1 for page in pages() for _ in command_lines(page.read_text("utf-8"))) > 50


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 80

"""Executes a tutorial as a reader would: files are written, commands run, Python is typed in, all in one folder."""

from __future__ import annotations

import doctest
from contextlib import chdir
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image
from typer.testing import CliRunner

from patchmine.cli import app
from tests.support.documents import DOCS, Block, Step, blocks, steps

TUTORIALS = DOCS / "tutorials"

FREE = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field", "rocket")
"""Those of scikit-image's photographs that are free of rights, so that a picture of them may be published."""

TILE_PX, EVERY = 128, 2

_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(page: Path, folder: Path) -> None:
    """Execute every block of the page in the folder. Raises AssertionError where a page shows what does not happen."""
    if page.stem in ("imagenet", "latents"):
        small_imagenet(folder / "imagenet-val")
    names: dict[str, Any] = {}
    with chdir(folder):
        for block in blocks(page.read_text("utf-8")):
            if block.file is not None:
                Path(block.file).write_text(block.text, "utf-8")
            elif block.language == "console":
                for step in steps(block):
                    _command(step, f"{page.name}, line {block.line}")
            elif block.language == "pycon" and _at_hand(block):
                names = _typed_in(block, names, page)
            elif block.language == "python":
                exec(compile(block.text, f"{page.name}, line {block.line}", "exec"), names)


def small_imagenet(folder: Path) -> None:
    """In place of ImageNet: free photographs in squares, those of one photograph in a folder, which is their class."""
    pictures = files("skimage") / "data"
    found = [Path(str(file)) for file in pictures.iterdir() if Path(file.name).stem in FREE]
    for file in sorted(found, key=lambda file: file.name):
        (folder / file.stem).mkdir(parents=True)
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        places = [
            (left, top)
            for top in range(0, picture.height - TILE_PX + 1, TILE_PX)
            for left in range(0, picture.width - TILE_PX + 1, TILE_PX)
        ]
        for left, top in places[::EVERY]:
            tile = picture.crop((left, top, left + TILE_PX, top + TILE_PX))
            tile.save(folder / file.stem / f"{top:03d}-{left:03d}.png")


def _at_hand(block: Block) -> bool:
    """Whether what an extra brings is installed; the page says which blocks need one."""
    needs = {"to_pandas": "pandas", "to_arrow": "pyarrow"}
    return all(find_spec(package) for word, package in needs.items() if word in block.text)


def _command(step: Step, where: str) -> None:
    """In this process: loading torch anew for each command would take minutes."""
    assert step.words[0] == "patchmine", f"{where}: {step.words[0]}"
    done = CliRunner().invoke(app, list(step.words[1:]), env={"COLUMNS": "120", "NO_COLOR": "1"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    told = f"{where}: {' '.join(step.words)}\n{done.stdout}{done.stderr}"
    assert done.exit_code == 0, told
    if step.output.strip():
        assert doctest.OutputChecker().check_output(step.output, done.stdout, _FLAGS), told


def _typed_in(block: Block, names: dict[str, Any], page: Path) -> dict[str, Any]:
    test = doctest.DocTestParser().get_doctest(block.text, names, f"{page.name}, line {block.line}", str(page), 0)
    assert test.examples, f"{page.name}, line {block.line}: nothing to execute"
    told: list[str] = []
    doctest.DocTestRunner(optionflags=_FLAGS).run(test, out=told.append, clear_globs=False)
    assert not told, "".join(told)
    return test.globs


def keep(drawn: Path, target: Path, width_px: int | None = 1000, quality: int = 85) -> None:
    """Save a drawn picture as a page shows it: as a JPEG, at this width or as it is."""
    with Image.open(drawn) as opened:
        picture = opened.convert("RGB")
    if width_px is not None:
        height = round(picture.height * width_px / picture.width)
        picture = picture.resize((width_px, height), Image.Resampling.LANCZOS)
    picture.save(target, quality=quality, optimize=True)

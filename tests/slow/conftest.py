"""What several of the long checks need: photographs, and an index of them by the default network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import patchmine
from patchmine.cli.samples import collect_photographs
from patchmine.errors import RequestError
from patchmine.index import Index
from patchmine.sources import open_source


@pytest.fixture(scope="session")
def photographs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of at most `--limit` photographs by class, spread evenly over `--photographs`, or those of the demo."""
    folder = tmp_path_factory.mktemp("photographs")
    given: Path | None = request.config.getoption("--photographs")
    if given is None:
        try:
            collect_photographs(folder)
        except RequestError as error:
            pytest.skip(f"{error}, or give --photographs DIR")
        return folder
    entries = open_source(str(given)).entries()
    count = min(len(entries), request.config.getoption("--limit"))
    for number in np.linspace(0, len(entries) - 1, count).round().astype(int):
        link = folder / entries[number].path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((given / entries[number].path).resolve())
    return folder


@pytest.fixture(scope="session")
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The index of `--index`, or a new one of the photographs."""
    if given := request.config.getoption("--index"):
        return patchmine.open_index(given, request.config.getoption("--photographs"))
    directory = tmp_path_factory.mktemp("indexes") / "photographs.patchmine"
    patchmine.build_index(request.getfixturevalue("photographs"), directory)
    return patchmine.open_index(directory)


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))

"""Converted networks in the user's cache: reading one takes a hundredth of the time that converting takes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from patchmine.networks.network import Network
from patchmine.networks.taps import Tap
from patchmine.system import digests
from patchmine.system.caches import user_cache

MOST = 24
"""Cached graphs; when there are more, the ones used longest ago are removed."""

_PACKAGES = ("patchmine", "openvino", "torch", "torchvision", "timm")


def cached(network: Network, taps: Sequence[Tap], convert: Callable[[], Any]) -> Any:
    """The graph of the tapped network: read, or converted and cached where that is possible.

    A network made by code of the user's own is not cached: the code can change while its weights stay.
    """
    import openvino

    if network.code is not None:
        return convert()
    place = user_cache() / "openvino" / _key(network, taps)
    graph = place / "graph.xml"
    with suppress(RuntimeError, OSError):
        if graph.is_file():
            found = openvino.Core().read_model(graph)
            graph.touch()
            return found
    made = convert()
    with suppress(RuntimeError, OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as making:
            openvino.save_model(made, Path(making) / "new" / "graph.xml", compress_to_fp16=False)
            shutil.rmtree(place, ignore_errors=True)
            (Path(making) / "new").rename(place)
        _prune(place.parent)
    return made


def _key(network: Network, taps: Sequence[Tap]) -> str:
    about = [
        network.name,
        network.weights,
        network.preprocessing.crop,
        [(tap.layer, tap.call, tap.layout.grid, tap.layout.channels) for tap in taps],
        [_version(name) for name in _PACKAGES],
    ]
    return digests.of_json(about)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _prune(folder: Path) -> None:
    graphs = sorted(folder.glob("*/graph.xml"), key=lambda file: file.stat().st_mtime)
    for graph in graphs[:-MOST]:
        shutil.rmtree(graph.parent, ignore_errors=True)

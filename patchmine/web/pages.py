"""The pages as HTML, by the same templates for a server and for plain files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from patchmine.system.printable import printable
from patchmine.units import Unit
from patchmine.web.facts import Shown
from patchmine.web.pictures import BLOCK

_CHANNEL = 987654321  # stands for any channel in the address of a unit


class Links(Protocol):
    """The addresses that pages use."""

    def root(self) -> str: ...
    def home(self) -> str: ...
    def layer(self, layer: str) -> str: ...
    def unit(self, unit: Unit) -> str: ...
    def static(self, name: str) -> str: ...
    def search(self) -> str: ...
    def strips(self, layer: str, block: int) -> str | None: ...
    def crop(self, shown: Shown, crop: str, px: int) -> str | None: ...
    def photograph(self, shown: Shown) -> str | None: ...
    def synthetic(self, unit: Unit) -> str: ...


class Served:
    """Addresses on a server. `version` changes with the index, so that browsers may keep pictures for good."""

    def __init__(self, version: str) -> None:
        self._version = version

    def root(self) -> str:
        """What stands before the addresses in the search list."""
        return ""

    def home(self) -> str:
        return "/"

    def layer(self, layer: str) -> str:
        return f"/layers/{quoted(layer)}"

    def unit(self, unit: Unit) -> str:
        return f"/units/{quoted(str(unit))}"

    def static(self, name: str) -> str:
        return f"/static/{name}?v={self._version}"

    def search(self) -> str:
        return f"/search.js?v={self._version}"

    def strips(self, layer: str, block: int) -> str:
        return f"/strips/{quoted(layer)}/{block}.jpg?v={self._version}"

    def crop(self, shown: Shown, crop: str, px: int) -> str:
        patch, at = shown.patch, shown.patch.position
        place = f"{patch.unit.channel}/{crop}/{patch.image_id}/{at.y}/{at.x}/{px}"
        return f"/crops/{quoted(patch.unit.layer)}/{place}?v={self._version}"

    def photograph(self, shown: Shown) -> str:
        return f"/photographs/{shown.patch.image_id}.jpg?v={self._version}"

    def synthetic(self, unit: Unit) -> str:
        return f"/synthetic/{quoted(str(unit))}.png?v={self._version}"

    def nearest(self, unit: Unit) -> str:
        return f"/nearest/{quoted(str(unit))}?v={self._version}"


def quoted(text: str) -> str:
    return quote(text, safe=":", errors="surrogateescape")


def page(name: str, links: Links, facts: Mapping[str, Any], **more: Any) -> str:
    """A whole page by its template, such as `unit`. `more` says what the surroundings offer: `live`, `compute`."""
    offered = {"live": False, "compute": False, **more}
    return _environment().get_template(f"{name}.html").render(links=links, **offered, **facts)


@cache
def static() -> dict[str, bytes]:
    """The style sheet, the script and the icon, by name."""
    folder = Path(__file__).parent / "static"
    return {file.name: file.read_bytes() for file in sorted(folder.glob("[!.]*"))}


def search_script(links: Links, layers: Sequence[str], units: Sequence[Sequence[Any]]) -> bytes:
    """What the search field looks through, as a script: a page from the file system cannot fetch JSON.

    Of each layer its name and addresses, of each unit what `facts.search_list` says.
    """
    listed = []
    for layer in layers:
        before, _, after = links.unit(Unit(layer, _CHANNEL)).rpartition(str(_CHANNEL))
        listed.append({"name": printable(layer), "page": links.layer(layer), "units": before, "end": after})
    found = json.dumps({"layers": listed, "units": units}, separators=(",", ":"))
    return f"window.patchmine = {found};\n".encode("ascii")


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("patchmine.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    found.filters |= {
        "short": lambda number: "–" if number is None else f"{number:.3g}",
        "percent": _percent,
        "counted": _counted,
    }
    found.globals["block"] = BLOCK
    return found


def _shown(value: Any) -> Any:
    """Text from an index without control characters, direction marks and surrogates; markup as it is."""
    return value if isinstance(value, Markup) else printable(str(value))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


__all__ = ["Links", "Served", "page", "quoted", "search_script", "static"]

"""How units and patches show themselves in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from patchmine.errors import PatchmineError
from patchmine.system.printable import printable
from patchmine.units import Box, Unit

if TYPE_CHECKING:
    from PIL.Image import Image


class Thumbnail(Protocol):
    """What a figure element needs of a patch."""

    @property
    def image(self) -> str: ...
    @property
    def box(self) -> Box: ...
    @property
    def caption(self) -> str: ...
    def crop(self) -> Image: ...


def png(patch: Thumbnail) -> bytes | None:
    """The crop as a PNG; None, which shows nothing, where the photograph can no longer be read."""
    from io import BytesIO

    buffer = BytesIO()
    try:
        patch.crop().save(buffer, "PNG")
    except PatchmineError:
        return None
    return buffer.getvalue()


def thumbnail_html(patch: Thumbnail, height_px: int = 128) -> str:
    """A figure element with the crop inlined as a JPEG, at most twice as high as it is shown.

    A photograph that can no longer be read gets the reason instead.
    """
    from html import escape

    try:
        shown = f'<img src="data:image/jpeg;base64,{_jpeg(patch, 2 * height_px)}" style="height:{height_px}px">'
    except PatchmineError as error:
        reason = escape(printable(str(error)))
        shown = f'<p style="height:{height_px}px;width:{height_px}px;margin:0;overflow:hidden;color:#a00">{reason}</p>'
    title = escape(printable(f"{patch.image} {patch.box.as_tuple()}"), quote=True)
    return (
        f'<figure style="display:inline-block;margin:4px;text-align:center" title="{title}">'
        f"{shown}<figcaption>{escape(printable(patch.caption))}</figcaption></figure>"
    )


def png_html(image: Image, height_px: int = 128) -> str:
    """An image element with the whole image inlined as a PNG, pixel by pixel."""
    from base64 import b64encode
    from io import BytesIO

    buffer = BytesIO()
    image.save(buffer, "PNG")
    data = b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" style="height:{height_px}px;margin:4px">'


def unit_html(name: str, unit: Unit, evidence: str, patches: str) -> str:
    """A unit's name and how far its label holds, above the HTML of its best patches."""
    from html import escape

    beside = f" · {escape(printable(evidence))}" if evidence else ""
    return f"<p><b>{escape(printable(name))}</b> ({escape(printable(str(unit)))}){beside}</p>{patches}"


def _jpeg(patch: Thumbnail, height_px: int) -> str:
    """The crop, no higher than `height_px`, as a JPEG in base64."""
    from base64 import b64encode
    from io import BytesIO

    crop, buffer = patch.crop(), BytesIO()
    if crop.height > height_px:
        crop = crop.resize((max(1, round(crop.width * height_px / crop.height)), height_px), reducing_gap=3.0)
    crop.save(buffer, "JPEG", quality=90)
    return b64encode(buffer.getvalue()).decode("ascii")

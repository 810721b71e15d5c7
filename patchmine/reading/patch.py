"""A patch: the place in a photograph that drives a unit, with all that is needed to cut it out and to draw it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchmine.errors import UnitError
from patchmine.fields.cropping import Cropping
from patchmine.fields.field import ReceptiveField
from patchmine.photographs.placement import Placement
from patchmine.units import Box, Position, Unit

if TYPE_CHECKING:
    from PIL.Image import Image

    from patchmine.photographs.placement import View


@dataclass(frozen=True)
class Patch:
    """The place in a photograph that drives a unit, with the rank it takes in the answer that holds it.

    `input_box` is the whole receptive field in input pixels and may reach beyond the input. `box` is its part inside
    the picture that the network saw, in source pixels, widened by the reach of the resize filter: nothing outside
    `box` can change `value`. `visible` is the share of the receptive field's area that lies inside the input.

    `image` is the photograph's path in its source, `image_id` its number in the index, or -1 for a photograph that is
    in no index. `field` is the layer's receptive field at the size of this input, `placement` how the photograph lies
    in it, `read` returns the photograph's encoded bytes; they are None in a patch that belongs to no index.
    """

    unit: Unit
    rank: int
    value: float
    image: str
    image_id: int
    class_name: str | None
    position: Position
    visible: float
    input_box: Box
    box: Box
    field: ReceptiveField | None = dataclasses.field(default=None, repr=False, compare=False)
    placement: Placement | None = dataclasses.field(default=None, repr=False, compare=False)
    read: Callable[[], bytes] | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def at(
        cls,
        position: Position,
        *,
        unit: Unit,
        rank: int,
        value: float,
        image: str,
        image_id: int = -1,
        class_name: str | None = None,
        cropping: Cropping,
        field: ReceptiveField,
        placement: Placement,
        read: Callable[[], bytes],
    ) -> Patch:
        """The patch at a position of the layer's grid; `cropping`, which must be settled, decides its `box`."""
        return cls(
            unit=unit,
            rank=rank,
            value=value,
            image=image,
            image_id=image_id,
            class_name=class_name,
            position=position,
            visible=field.visible(unit.channel, position),
            input_box=field.group(unit.channel).whole(position),
            box=placement.to_source(cropping.box(field, unit.channel, position)),
            field=field,
            placement=placement,
            read=read,
        )

    def photograph(self) -> bytes:
        """The photograph's encoded bytes. Raises PhotographError when it has gone or changed, UnitError without one."""
        if self.read is None:
            raise UnitError(f"this patch of {self.image!r} belongs to no index, so it cannot be cut out")
        return self.read()

    def crop(self) -> Image:
        """The pixels inside `box`, at the photograph's full resolution, as a Pillow RGB image.

        Raises PhotographError when the photograph can no longer be read.
        """
        from patchmine.photographs.crops import cut

        return cut(self.photograph(), self.box)

    def view(self, cropping: Cropping) -> View:
        """What a tile of the patch shows, in input pixels. The cropping must be settled."""
        assert self.field is not None, "a patch that belongs to no index has no view"
        return cropping.view(self.field, self.unit.channel, self.position)

    def tile(self, view: View, size: tuple[int, int]) -> Image:
        """The view as a Pillow RGB image of `size` (width, height) pixels. Raises PhotographError as `crop` does."""
        from patchmine.photographs.crops import tile

        assert self.placement is not None, "a patch that belongs to no index has no tile"
        return tile(self.photograph(), self.placement, view, size)

    def as_dict(self) -> dict[str, Any]:
        """The patch as the command line's JSON contract writes it."""
        return {
            "rank": self.rank,
            "value": self.value,
            "image": self.image,
            "image_id": self.image_id,
            "class": self.class_name,
            "position": {"y": self.position.y, "x": self.position.x},
            "visible": round(self.visible, 6),
            "input_box": self.input_box.as_dict(),
            "box": self.box.as_dict(),
        }

    @property
    def caption(self) -> str:
        """Rank, value and class in one line."""
        return f"#{self.rank} · {self.value:.3g}" + (f" · {self.class_name}" if self.class_name else "")

    def _repr_png_(self) -> bytes | None:
        from patchmine.reading.notebook import png  # not for every cold query

        return png(self)

    def _repr_html_(self) -> str:
        from patchmine.reading.notebook import thumbnail_html

        return thumbnail_html(self)

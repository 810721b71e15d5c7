"""A patch: the place in a photograph that drives a unit, with all that is needed to cut it out and to draw it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from patchmine.defaults import DIFFUSE, SHARE
from patchmine.errors import UnitError
from patchmine.fields.cropping import Cropping, squared
from patchmine.fields.field import ReceptiveField
from patchmine.photographs.placement import Placement, View
from patchmine.units import Box, Position, Unit

if TYPE_CHECKING:
    from PIL.Image import Image

    from patchmine.kept.tight_crops import TightCrop
    from patchmine.photographs.crops import Piece


@dataclass(frozen=True)
class Patch:
    """The place in a photograph that drives a unit, with the rank it takes in the answer that holds it.

    `input_box` is the whole receptive field in input pixels and may reach beyond the input. `box` is its part inside
    the picture that the network saw, in source pixels, widened by the reach of the resize filter: nothing outside
    `box` can change `value`. `visible` is the share of the receptive field's area that lies inside the input.

    `image` is the photograph's path in its source, `image_id` its number in the index, or -1 for a photograph that is
    in no index. `field` is the layer's receptive field at the size of this input, `placement` how the photograph lies
    in it, `read` returns the photograph's encoded bytes, and `embedded` those of its picture inside the index, if there
    is one; they are None in a patch that belongs to no index.

    With `cropped` the patch shows its tight crop, where it has one: `input_box` and `box` are those of the crop then.
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
    embedded: Callable[[], bytes | None] | None = dataclasses.field(default=None, repr=False, compare=False)
    tighten: Callable[[], TightCrop | None] | None = dataclasses.field(default=None, repr=False, compare=False)
    cropped: bool = dataclasses.field(default=False, repr=False)

    @cached_property
    def tight(self) -> TightCrop | None:
        """The tight crop; None if the photograph drives the unit hardly more than a background does.

        What the index does not keep is computed, with the network, and kept. Raises UnitError for a patch that belongs
        to no index, and what `OpenIndex.network` raises.
        """
        if self.tighten is None:
            raise UnitError(f"this patch of {self.image!r} belongs to no index, so it has no tight crop")
        return self.tighten()

    @property
    def area(self) -> float | None:
        """The share of the input that the tight crop covers; None where there is none."""
        if self.tight is None or self.placement is None:
            return None
        return self.tight.box.area / (self.placement.input[0] * self.placement.input[1])

    def with_tight(self, crop: TightCrop | None) -> Patch:
        """The same patch, showing this tight crop; without one its boxes stay."""
        assert self.placement is not None, "a patch that belongs to no index has no tight crop"
        shown = dataclasses.replace(self, cropped=True, tighten=lambda: crop)
        if crop is None:
            return shown
        return dataclasses.replace(shown, input_box=crop.box, box=self.placement.to_source(crop.box))

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
        embedded: Callable[[], bytes | None] | None = None,
        tighten: Callable[[], TightCrop | None] | None = None,
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
            embedded=embedded,
            tighten=tighten,
        )

    def photograph(self) -> bytes:
        """The photograph's encoded bytes. Raises PhotographError when it has gone or changed, UnitError without one."""
        if self.read is None:
            raise UnitError(f"this patch of {self.image!r} belongs to no index, so it cannot be cut out")
        return self.read()

    def picture(self) -> bytes:
        """The encoded bytes of a picture that has the photograph's size and shows what the network sees of it.

        It is the one embedded in the index, if there is one, else the photograph. So a sheet is the same with and
        without the photographs. Raises what `photograph` raises.
        """
        found = None if self.embedded is None else self.embedded()
        return self.photograph() if found is None else found

    def crop(self) -> Image:
        """The pixels inside `box`, at the photograph's full resolution, as a Pillow RGB image, cut from `picture()`.

        Raises PhotographError when the photograph can no longer be read.
        """
        from patchmine.photographs.crops import cut

        return cut(self.picture(), self.box)

    @property
    def tightened(self) -> bool:
        """Whether it shows its tight crop."""
        return self.cropped and self.tight is not None

    def view(self, cropping: Cropping) -> View:
        """What a tile of the patch shows, in input pixels. The cropping must be settled."""
        assert self.field is not None and self.placement is not None, "a patch that belongs to no index has no view"
        view = cropping.view(self.field, self.unit.channel, self.position)
        if cropping.crop != "tight":
            return view
        if not self.cropped or self.tight is None:
            return View(squared(view.window, self.field.input), view.shown, view.outlines)
        window = squared(self.tight.box, self.field.input)
        return View(window, window, lit=self.tight.box)

    def context(self) -> View:
        """What a tile shows that has the whole input: outlined are the tight crop, if the patch shows one, and the
        receptive and the effective field where they do not cover all; it is faded outside the smallest of them."""
        assert self.field is not None, "a patch that belongs to no index has no view"
        whole = Box(0, 0, self.field.input[1], self.field.input[0])
        tight = self.tight.box if self.cropped and self.tight is not None else None
        effective = self.field.effective_box(self.unit.channel, self.position, SHARE)
        fields = (self.field.group(self.unit.channel).seen(self.position), effective)
        seen, effective = (field and field.intersect(whole) for field in fields)
        outlines = tuple(None if box == whole else box for box in (tight, seen, effective))
        return View(whole, whole, outlines, lit=tight or effective or seen)

    def piece(self, view: View) -> Piece:
        """What a tile of the view shows, in the photograph's own pixels. Raises PhotographError as `crop` does."""
        from patchmine.photographs.crops import piece

        assert self.placement is not None, "a patch that belongs to no index has no tile"
        return piece(self.picture(), self.placement, view)

    def tile(self, view: View, size: tuple[int, int]) -> Image:
        """The view as a Pillow RGB image of `size` (width, height) pixels. Raises PhotographError as `crop` does."""
        return self.piece(view).drawn(size)

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
            **(self._proof() if self.cropped else {}),
        }

    def _proof(self) -> dict[str, float | None]:
        if self.tight is None or self.area is None:
            return dict.fromkeys(("retained", "without", "area"))
        return {
            "retained": round(self.tight.retained, 6),
            "without": round(self.tight.without, 6),
            "area": round(self.area, 6),
        }

    @property
    def proof_text(self) -> str | None:
        """What the tight crop proves, in words; None if the patch does not show one."""
        if not self.cropped:
            return None
        if self.tight is None or self.area is None:
            return "no tight crop: hardly stronger than the background"
        text = f"{_percent(self.tight.retained)} of the activation from {_percent(self.area)} of the picture"
        return f"diffuse: {text}" if self.area > DIFFUSE else text

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


def _percent(share: float) -> str:
    """A share in percent, with a digit after the point below 1%."""
    return f"{share * 100:.0f}%" if share >= 0.01 else f"{share * 100:.1f}%"

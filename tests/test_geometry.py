import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from patchmine.fields.field import FieldGroup, ReceptiveField
from patchmine.photographs.decode import prepare
from patchmine.photographs.placement import Preprocessing
from patchmine.units import Box, Position

HALF = (0.5, 0.5, 0.5)
SIZES = [(500, 375), (375, 500), (224, 224), (97, 131), (1200, 300), (257, 256), (60, 50)]


def preprocessing(interpolation="bicubic", resize=256, crop=(224, 224)):
    return Preprocessing(resize, crop, interpolation, HALF, HALF)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_are_those_of_torchvisions_resize_and_crop(size, interpolation):
    array = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    expected = v2.CenterCrop(224)(
        v2.Resize(256, InterpolationMode(interpolation), antialias=True)(torch.from_numpy(array).permute(2, 0, 1))
    )
    assert torch.equal(prepare(png(array), preprocessing(interpolation)).tensor, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_nothing_outside_the_source_box_changes_the_input_box(size, interpolation):
    """And the box is no larger than it must be: a change on each of its inner edges does reach the input box."""
    rng = np.random.default_rng(2)
    settings = preprocessing(interpolation)
    placement = settings.place(*size)
    array = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    before = prepare(png(array), settings).tensor
    for _ in range(6):
        left, top = rng.integers(0, 190, 2)
        inside = Box(int(left), int(top), int(left) + 34, int(top) + 34)
        box = placement.to_source(inside)
        noisy = rng.integers(0, 256, array.shape, dtype=np.uint8)
        noisy[box.top : box.bottom, box.left : box.right] = array[box.top : box.bottom, box.left : box.right]
        after = prepare(png(noisy), settings).tensor
        cut = (slice(None), slice(inside.top, inside.bottom), slice(inside.left, inside.right))
        assert torch.equal(before[cut], after[cut])
        # The outermost taps of a bicubic kernel weigh so little that two pixels may be needed to see them.
        for edge in (np.s_[:, box.left : box.left + 3], np.s_[box.top : box.top + 3, :]):
            changed = array.copy()
            changed[edge] = 255 * (changed[edge] < 128)
            assert not torch.equal(before[cut], prepare(png(changed), settings).tensor[cut])


def test_a_crop_larger_than_the_picture_is_padded_with_the_mean():
    settings = preprocessing(resize=100, crop=(120, 140))
    array = np.full((50, 50, 3), 255, np.uint8)
    pixels = prepare(png(array), settings)
    assert pixels.tensor.shape == (3, 120, 140)
    assert pixels.placement.picture == Box(20, 10, 120, 110)
    assert pixels.tensor[:, 10:110, 20:120].eq(255).all()
    assert pixels.tensor[0, 0, 0] == 128
    assert pixels.placement.to_source(Box(0, 0, 20, 10)).area == 0
    assert pixels.placement.to_source(Box(-50, -50, 500, 500)) == Box(0, 0, 50, 50)


def test_squash_scales_the_axes_apart():
    placement = Preprocessing((100, 200), (100, 200), "bilinear", HALF, HALF).place(400, 400)
    assert placement.resized == (200, 100)
    # Four times as many source rows as input rows, and twice as many columns, each with the reach of the filter.
    assert placement.to_source(Box(50, 25, 51, 26)) == Box(99, 98, 103, 106)


def test_preprocessing_survives_json():
    for settings in (preprocessing(), Preprocessing((90, 80), (64, 64), "bilinear", HALF, HALF)):
        assert Preprocessing.from_dict(settings.as_dict()) == settings


def field():
    rows = np.array([[0, 7], [1, 15], [9, 20]], np.int32)
    regular = FieldGroup((0, 4), rows, rows, (14, 14), (8, 8), (-7, -7))
    odd = FieldGroup((4, 6), rows, rows, None, None, None)
    return ReceptiveField("conv", 6, (3, 3), (20, 20), "exact", (regular, odd))


def test_whole_field_reaches_beyond_the_input_and_the_seen_one_does_not():
    regular = field().group(3)
    assert regular.whole(Position(0, 2)) == Box(9, -7, 23, 7)
    assert regular.seen(Position(0, 2)) == Box(9, 0, 20, 7)
    assert field().visible(3, Position(0, 2)) == pytest.approx(7 * 11 / 14**2)


def test_without_a_regular_form_the_seen_field_is_the_whole_one():
    odd = field().group(5)
    assert odd.whole(Position(0, 0)) == odd.seen(Position(0, 0)) == Box(0, 0, 7, 7)
    assert field().visible(5, Position(0, 0)) == 1


def test_field_survives_json():
    import json

    original = field()
    again = ReceptiveField.from_dict(json.loads(json.dumps(original.as_dict())), original.input)
    assert again.as_dict() == original.as_dict()
    assert again.groups[0].rows.dtype == np.int32


def test_boxes_that_do_not_meet_have_no_area():
    assert Box(0, 0, 5, 5).intersect(Box(7, 7, 9, 9)).area == 0

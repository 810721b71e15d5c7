"""A shape planted at a known place of a photograph lies in the box of the unit that finds it, however it is stored."""

import numpy as np
import pytest
from PIL import Image

import patchmine
from patchmine.defaults import Wanted
from patchmine.errors import FieldError, RequestError
from patchmine.photographs.placement import Preprocessing
from patchmine.units import Box
from tests.conftest import jpeg

WINDOWS = """
import torch
from torch import nn
from patchmine import Preprocessing

def build():
    conv = nn.Conv2d(3, 1, 32, stride=32)  # 7 x 7 windows that do not overlap; its unit is the mean redness
    with torch.no_grad():
        conv.weight[:] = torch.tensor([1.0, -0.5, -0.5]).view(1, 3, 1, 1) / 32**2
        conv.bias[:] = 0
    half = (0.5, 0.5, 0.5)
    return nn.Sequential(conv), Preprocessing(256, (224, 224), "bicubic", half, half)
"""
HALF = (0.5, 0.5, 0.5)
TURNS = {  # from the upright picture to what is stored, by EXIF orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def planted(rng, placement, cell, side):
    """A gray picture with a red square in the middle half of one window, and the square's box in source pixels."""
    down, across = placement.source[1] / placement.resized[1], placement.source[0] / placement.resized[0]
    y, x = (32 * place + 16 + rng.uniform(-7, 7) for place in cell)
    center = ((x + placement.left) * across, (y + placement.top) * down)
    box = Box(
        *(round(center[i % 2] + sign * side * (across, down)[i % 2] / 2) for i, sign in enumerate((-1, -1, 1, 1)))
    )
    picture = Image.fromarray(rng.integers(90, 120, (*placement.source[::-1], 1), dtype=np.uint8).repeat(3, 2))
    picture.paste((230, 40, 40), box.as_tuple())
    return picture, box


@pytest.mark.parametrize("view", ["crop", "pad", "whole"])
def test_every_position_every_orientation_landscape_and_portrait(tmp_path, view):
    rng = np.random.default_rng(5)
    folder, truth = tmp_path / "planted", {}
    folder.mkdir()
    settings = Preprocessing(256, (224, 224), "bicubic", HALF, HALF, view)
    number = 0
    for size in ((400, 300), (300, 420)):
        placement = settings.place(*size)
        for cell in np.ndindex(placement.input[1] // 32, placement.input[0] // 32):
            window = Box(32 * cell[1], 32 * cell[0], 32 * cell[1] + 32, 32 * cell[0] + 32)
            if not placement.picture.contains(window):
                continue
            picture, box = planted(rng, placement, cell, 16)
            orientation = number % 8 + 1
            stored = picture if orientation == 1 else picture.transpose(TURNS[orientation])
            exif = Image.Exif()
            exif[0x0112] = orientation
            (folder / f"{number:03d}.jpg").write_bytes(jpeg(stored, quality=92, exif=exif))
            truth[f"{number:03d}.jpg"] = cell, box, size
            number += 1
    (tmp_path / "net.py").write_text(WINDOWS)
    out = tmp_path / "planted.patchmine"
    patchmine.build_index(folder, out, model=f"{tmp_path}/net.py:build", layers=("0",), view=view)
    index = patchmine.open_index(out)
    # 400x300 pixels fitted into 224 leave 168 rows, five whole windows; seen whole they are trimmed to 384x288.
    assert len(truth) == len(index) == {"crop": 2 * 49, "pad": 2 * 5 * 7, "whole": 12 * 9 + 9 * 13}[view]
    for patch in index.unit("0:0").top(200):
        cell, square, size = truth[patch.image]
        assert index.store.image(patch.image_id).size == size
        assert (patch.position.y, patch.position.x) == cell
        assert patch.box.contains(square)
        assert patch.visible == 1
        scale = index.placement(patch.image_id)
        half_stride = [16 * scale.source[axis] / scale.resized[axis] for axis in (0, 1)]
        assert abs(patch.box.left + patch.box.right - square.left - square.right) / 2 <= half_stride[0]
        assert abs(patch.box.top + patch.box.bottom - square.top - square.bottom) / 2 <= half_stride[1]
        red = np.asarray(patch.crop()).reshape(-1, 3).astype(int)
        assert ((red[:, 0] - red[:, 1]) > 90).sum() >= 0.8 * square.area


def test_padding_around_a_whole_picture_is_no_part_of_a_box():
    placement = Preprocessing(256, (224, 224), "bicubic", HALF, HALF, "pad").place(400, 200)
    assert placement.resized == (224, 112)
    assert placement.picture == Box(0, 56, 224, 168)
    assert placement.to_source(Box(0, 0, 224, 224)) == Box(0, 0, 400, 200)
    assert placement.to_source(Box(0, 0, 224, 40)).area == 0


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "LA", "RGBA", "1"])
def test_every_mode_of_a_picture_is_indexed_as_pillow_shows_it(tmp_path, mode):
    gray = np.linspace(0, 255, 300 * 260).reshape(260, 300)
    if mode == "I;16":
        picture = Image.fromarray((gray * 257).astype(np.uint16))
    else:
        picture = Image.fromarray(gray.astype(np.uint8)).convert("RGB").convert(mode)
    suffix = ".jpg" if mode == "CMYK" else ".png"
    from patchmine.photographs.decode import prepare

    picture.save(tmp_path / f"picture{suffix}")
    settings = Preprocessing(256, (224, 224), "bicubic", HALF, HALF)
    pixels = prepare((tmp_path / f"picture{suffix}").read_bytes(), settings).tensor
    assert pixels.shape == (3, 224, 224)
    # The ramp runs from dark to light, so the rows do too; a wrong conversion clips or inverts it.
    rows = pixels.float().mean((0, 2))
    assert rows[0] < 60
    assert rows[-1] > 195
    assert (rows[48:] - rows[:-48] > 0).all()


def test_an_unknown_view_or_field_is_answered_with_the_nearest(tmp_path):
    for options, answer in (({"view": "pda"}, "did you mean pad"), ({"field": "ful"}, "did you mean full")):
        with pytest.raises(RequestError, match=answer):
            patchmine.build_index("shapes:2", tmp_path / "x.patchmine", model="shapes", **options)


def test_a_photograph_seen_whole_is_trimmed_and_not_resized():
    settings = Preprocessing(256, (224, 224), "bicubic", HALF, HALF, "whole")
    placement = settings.place(333, 250)
    assert placement.resized == (333, 250)
    assert placement.input == (320, 224)
    assert (placement.left, placement.top) == (6, 13)
    assert placement.to_source(Box(0, 0, 320, 224)).contains(Box(6, 13, 326, 237))


def test_too_small_to_be_seen_whole_is_skipped_with_the_reason(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    for number, side in enumerate((20, 300)):
        (folder / f"{number}.jpg").write_bytes(jpeg(Image.new("RGB", (side, side), "red")))
    (tmp_path / "net.py").write_text(WINDOWS)
    out = tmp_path / "s.patchmine"
    report = patchmine.build_index(folder, out, model=f"{tmp_path}/net.py:build", layers=("0",), view="whole")
    assert report.as_dict()["skipped_files"] == [
        {"image": "0.jpg", "reason": "a photograph of 20x20 pixels is smaller than 32 pixels"}
    ]


def test_what_cannot_be_seen_whole_is_refused_first(tmp_path):
    with pytest.raises(RequestError, match="needs feature maps, but layer 'fc' has none"):
        patchmine.build_index(
            "shapes:2", tmp_path / "x.patchmine", model="torchvision:resnet18@random", layers=("fc",), view="whole"
        )
    fixed = Wanted(model="timm:vit_tiny_patch16_224@random", layers=("patch_embed.proj",), view="whole")
    with pytest.raises(FieldError, match="256x288"):
        patchmine.build_index("shapes:2", tmp_path / "x.patchmine", fixed)
    assert not (tmp_path / "x.patchmine").exists()


def test_rows_of_one_size_and_columns_of_another_are_the_fields_of_the_size_between():
    from patchmine import models
    from patchmine.fields.exact import receptive_fields
    from patchmine.fields.field import FieldsBySize, covering

    module = models.load(pretrained=False).module
    sizes = [(288, 256), (320, 256), (320, 384)]
    assert covering(sizes) == [(288, 256), (320, 384)]
    fields = FieldsBySize(tuple(receptive_fields(module, size, ["blocks.3"])["blocks.3"] for size in covering(sizes)))
    for size in sizes:
        assert fields.at(size).as_dict() == receptive_fields(module, size, ["blocks.3"])["blocks.3"].as_dict()
    with pytest.raises(KeyError):
        fields.at((224, 256))

"""`patchmine probe`: the verdict is right where the truth is known, and each change is what its name says."""

import json
import shutil

import numpy as np
import pytest
import torch

import patchmine
from patchmine.errors import RequestError, UnitError
from patchmine.probe.conditions import CONDITIONS, LUMA, Shown
from patchmine.probe.verdict import Retained, Verdict, retained
from patchmine.sheets.layouts.probe import _of_whole
from patchmine.units import Box, Unit
from tests.support import planted_colors
from tests.support.commands import failed

CHANGES = {condition.name: condition.change for condition in CONDITIONS}
BOX = Box(12, 8, 28, 24)
UNIT = Unit("units", 0)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("planted") / "planted.patchmine"
    model = f"{planted_colors.__file__}:build"
    patchmine.build_index("shapes:40", directory, model=model, layers=["units"], keep=10)
    index = patchmine.open_index(directory)
    index.use(model)
    return index


@pytest.fixture(scope="module")
def shown():
    """A picture of 48 x 40 pixels whose values stay clear of 0 and 255, with the center of its patch in the middle."""
    random = torch.Generator().manual_seed(0)
    pixels, host = 80 + 80 * torch.rand(2, 3, 40, 48, generator=random)
    return Shown(pixels, BOX, ((BOX.left + BOX.right) / 2, (BOX.top + BOX.bottom) / 2), host, seed=3)


def changed(name, shown):
    (picture,) = CHANGES[name](shown)
    return picture


def cut(picture):
    return picture[:, BOX.top : BOX.bottom, BOX.left : BOX.right]


def test_verdicts_are_right_where_the_truth_is_known(planted):
    """Of nine units; tests/slow/test_probes.py has all thirty."""
    for channel in (0, 4, 7, 11, 14, 18, 20, 24, 27):
        assert planted.unit(f"units:{channel}").probe(4).verdict.kind == planted_colors.KINDS[channel], channel


def test_what_has_no_color_has_three_equal_channels(shown):
    gray = changed("gray", shown)
    assert torch.equal(gray[0], gray[1]) and torch.equal(gray[0], gray[2])
    assert torch.allclose(gray[0], sum(weight * plane for weight, plane in zip(LUMA, shown.pixels, strict=True)))


def test_turning_the_hue_keeps_the_brightness_and_turns_a_gray_into_itself(shown):
    luma = torch.tensor(LUMA)[:, None, None]
    both = CHANGES["hue turned"](shown)
    assert len(both) == 2
    for picture in both:
        assert torch.allclose((picture * luma).sum(0), (shown.pixels * luma).sum(0), atol=1e-2)
        assert (picture - shown.pixels).abs().mean() > 10
    # Both ways together cancel: half of the sum is the picture without its color.
    assert torch.allclose(both.mean(0), changed("gray", shown), atol=0.1)


def test_a_flat_color_is_the_mean_of_the_patch_or_one_of_its_main_colors(shown):
    flat = CHANGES["flat color"](shown)
    assert torch.equal(flat, flat[:, :, :1, :1].expand_as(flat))
    assert torch.allclose(flat[0, :, 0, 0], cut(shown.pixels).mean((1, 2)))
    two = shown.pixels.clone()
    two[:] = torch.tensor([200.0, 30.0, 30.0])[:, None, None]
    two[:, :, 20:] = torch.tensor([10.0, 20.0, 180.0])[:, None, None]
    colors = CHANGES["flat color"](Shown(two, BOX, shown.center, shown.host, 0))[:, :, 0, 0]
    assert {(200, 30, 30), (10, 20, 180)} <= {tuple(color.round().int().tolist()) for color in colors}


def test_blurred_and_high_passed_add_up_to_the_picture(shown):
    both = changed("blurred", shown) + changed("high-passed", shown) - 127.5
    assert torch.allclose(both, shown.pixels, atol=1e-3)
    assert changed("blurred", shown).std() < 0.5 * shown.pixels.std()


def test_scrambling_keeps_the_spectrum_and_the_colors_and_repeats_without_an_edge(shown):
    scrambled, plain = cut(changed("scrambled", shown)), cut(shown.pixels)
    assert torch.allclose(torch.fft.rfft2(scrambled).abs(), torch.fft.rfft2(plain).abs(), rtol=1e-3, atol=0.1)
    assert torch.allclose(scrambled.mean((1, 2)), plain.mean((1, 2)), atol=1e-3)
    assert torch.allclose(torch.corrcoef(scrambled.flatten(1)), torch.corrcoef(plain.flatten(1)), atol=1e-3)
    assert not torch.allclose(scrambled, plain, atol=5)
    whole = changed("scrambled", shown)
    assert torch.equal(whole[:, BOX.top, BOX.left : BOX.left + 4], whole[:, BOX.bottom, BOX.left : BOX.left + 4])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mirrored", lambda patch: patch.flip(2)), ("turned 90°", lambda patch: torch.rot90(patch, 1, (1, 2)))],
)
def test_moving_is_around_the_middle_of_the_field(shown, name, expected):
    assert torch.allclose(cut(changed(name, shown)), expected(cut(shown.pixels)), atol=1e-2)


def test_scaling_is_around_the_middle_of_the_field():
    ramp = torch.arange(48.0).expand(3, 40, 48) * 4 + 20
    shown = Shown(ramp, BOX, (20.0, 16.0), ramp, 0)
    assert torch.allclose(
        changed("larger", shown)[0, 16, 14:26], 20 + 4 * (19.5 + (torch.arange(14.0, 26) - 19.5) / 1.5)
    )
    smaller = changed("smaller", shown)[0, 16, 14:26]
    assert torch.allclose(smaller, 20 + 4 * (19.5 + (torch.arange(14.0, 26) - 19.5) * 1.5))
    turned = changed("turned 30°", Shown(ramp.clone(), BOX, (20.0, 16.0), ramp, 0))[0]
    # Brightness grows to the right; turned counterclockwise it grows to the right and upwards.
    assert turned[16, 24] > turned[16, 16] and turned[12, 20] > turned[20, 20]


def test_a_patch_is_pasted_into_the_host(shown):
    picture = changed("pasted", shown)
    assert torch.equal(cut(picture), cut(shown.pixels))
    outside = torch.ones(40, 48, dtype=torch.bool)
    outside[BOX.top : BOX.bottom, BOX.left : BOX.right] = False
    assert torch.equal(picture[:, outside], shown.host[:, outside])


def test_what_is_retained_is_the_ratio_of_sums_above_unrelated_photographs():
    plain, unrelated, half = np.array([4.0, 6, 8]), np.array([1.0, -5, 2]), np.array([2.0, 3, 5])
    found = retained(UNIT, "half", half, plain, unrelated)
    assert found.retained == pytest.approx((10 - 3) / (18 - 3))
    assert found.low <= found.retained <= found.high and found.high - found.low > 0.01
    assert retained(UNIT, "all", plain, plain, unrelated).retained == 1
    assert retained(UNIT, "none", unrelated, plain, unrelated).high == 0
    with pytest.raises(UnitError, match="fires on its patches no more than on other photographs"):
        retained(UNIT, "none", plain, unrelated, plain)


@pytest.mark.parametrize(
    ("color", "shape", "kind", "words"),
    [
        (0.71, 0.22, "color", "color alone: 71%; shape alone: 22%: a color unit"),
        (0.22, 0.71, "shape", "a shape unit"),
        (0.2, 0.3, "both", "a unit of both, for neither suffices alone"),
        (0.8, 0.9, "either", "a unit of either, for each suffices alone"),
        (0.52, 0.1, "color", "a color unit (the intervals allow another verdict)"),
    ],
)
def test_the_verdict_in_words(color, shape, kind, words):
    found = {
        name: Retained(name, share, share - 0.05, share + 0.05)
        for name, share in (("flat color", color), ("gray", shape), ("hue turned", shape - 0.2))
    }
    verdict = Verdict.of(found)
    assert verdict.kind == kind and str(verdict).endswith(words)
    assert verdict.shape.name == "gray"


def test_the_command_prints_conditions_and_draws_what_the_network_saw(cli, shapes_index_dir, tmp_path):
    words = ("probe", "--unit", "colour:0", "-k", 3, "-i", shapes_index_dir)
    document = json.loads(cli(*words, "--json", "-o", "probe.pdf").stdout)
    assert [one["name"] for one in document["conditions"]] == list(CHANGES)
    for one in document["conditions"]:
        assert one["low"] <= one["retained"] <= one["high"]
    assert (document["kind"], document["patches"]) == ("color", 3)
    assert document["verdict"].startswith("color alone: 100%; shape alone: ")
    assert (tmp_path / "probe.pdf").stat().st_size > 20_000
    assert cli(*words, "--json").stdout == cli(*words, "--json").stdout
    head, *lines = cli(*words).stdout.splitlines()
    assert head.endswith("a color unit") and len(lines) == 1 + len(CHANGES)
    assert cli(*words, "--csv").stdout.splitlines()[0] == "name,retained,low,high"


def test_a_photograph_that_has_gone_is_left_out(cli, photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "photos")
    patchmine.build_index(tmp_path / "photos", tmp_path / "p.patchmine", model="shapes", layers=["contrast"])
    best = patchmine.open_index(tmp_path / "p.patchmine").unit("contrast:6").top(3)
    (tmp_path / "photos" / best[0].image).unlink()
    done = cli("probe", "--unit", "contrast:6", "-k", 3, "--json")
    assert json.loads(done.stdout)["patches"] == 2
    assert f"left out: {best[0].image}: " in done.stderr
    shutil.rmtree(tmp_path / "photos")
    assert "have moved, add --source FOLDER" in failed(cli("probe", "--unit", "contrast:6"))


def test_one_patch_is_not_patches_and_has_no_interval(cli, shapes_index_dir):
    probe = ("probe", "-i", shapes_index_dir, "--unit", "shape:1", "-k", 1)
    head, _, first, *_ = cli(*probe, "-o", "one.png").stdout.splitlines()
    assert ", 1 patch: " in head and head.endswith("(one patch has no interval)")
    assert first.split()[2:4] == ["-", "-"]
    found = json.loads(cli(*probe, "--json").stdout)
    assert not found["sure"]
    assert {(one["low"], one["high"]) for one in found["conditions"]} == {(None, None)}


def test_what_cannot_be_probed_is_refused_in_one_line(cli, shapes_index_dir):
    at = ("-i", shapes_index_dir)
    assert "colour:5 is dead on the photographs of" in failed(cli("probe", "--unit", "colour:5", *at))
    assert "-k must be at least 1, not 0" in failed(cli("probe", "--unit", "colour:0", "-k", 0, *at))
    assert "--seed must be at least 0" in failed(cli("probe", "--unit", "colour:0", "--seed", -1, *at))
    assert "end its name in .png" in failed(cli("probe", "--unit", "colour:0", "-o", "x.txt", *at))
    assert "did you mean" in failed(cli("probe", "--unit", "color:0", *at))
    with pytest.raises(RequestError, match="-k must be at least 1"):
        patchmine.open_index(shapes_index_dir).unit("colour:0").probe(0)


def test_numbers_below_tiles_have_three_digits_and_rounding_errors_are_0():
    assert [_of_whole(value, 0.976) for value in (0.96, -0.112, -3.9e-9, 0.0)] == ["0.960", "-0.112", "0", "0"]

"""The hand-set network finds what is drawn: by colour, by shape, by both, and in the right place."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from patchmine import models
from patchmine.errors import ModelError
from patchmine.fields.exact import receptive_fields
from patchmine.models.shapes import HUES, MEANINGS, STAGES
from patchmine.networks.taps import tapped
from patchmine.photographs.decode import prepare
from patchmine.photographs.placement import Placement
from patchmine.sources.shapes import COLORS, SHAPES, Shapes
from patchmine.units import Box, Position

COUNT = 60
SOURCE = Shapes(COUNT)


@dataclass
class Seen:
    """Per layer, the maximum of each unit on each picture and the index of its position in the grid."""

    values: dict[str, torch.Tensor]
    places: dict[str, torch.Tensor]
    placements: list[Placement]
    fields: dict

    def top(self, layer, meaning, count):
        """The numbers of the pictures that drive a unit hardest."""
        channel = MEANINGS[layer].index(meaning)
        return channel, torch.argsort(-self.values[layer][:, channel])[:count].tolist()

    def box(self, layer, channel, i):
        """The place of picture i that drove the unit, in source pixels."""
        y, x = divmod(int(self.places[layer][i, channel]), self.fields[layer].grid[1])
        return self.placements[i].to_source(self.fields[layer].group(channel).seen(Position(y, x)))

    def shown(self, i):
        """What is in picture i and not wholly cut away by the crop: shape, colour, box, and how much is left."""
        kept = self.placements[i].to_source(Box(0, 0, 224, 224))
        return [(s, c, box, box.intersect(kept).area / box.area) for s, c, box in SOURCE.truth(i)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for one another cost more than they save on pictures this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def seen():
    network = models.load("shapes")
    values, places, placements = {name: [] for name in STAGES}, {name: [] for name in STAGES}, []

    def tap(layer):
        def see(output):
            best = output.flatten(2).max(2)
            values[layer].append(best.values)
            places[layer].append(best.indices)

        return see

    entries = SOURCE.entries()
    with torch.inference_mode(), tapped(network.module, {name: tap(name) for name in STAGES}):
        for start in range(0, COUNT, 8):
            pixels = [prepare(SOURCE.read(e.path), network.preprocessing) for e in entries[start : start + 8]]
            placements += [p.placement for p in pixels]
            network.module(torch.stack([p.tensor for p in pixels]) / 127.5 - 1)
    fields = receptive_fields(network.module, network.preprocessing.crop, STAGES)
    return Seen(
        {k: torch.cat(v) for k, v in values.items()}, {k: torch.cat(v) for k, v in places.items()}, placements, fields
    )


def holds(layer, meaning):
    """Whether a drawn shape is what the unit means."""
    return {
        "colour": lambda shape, colour: colour == meaning,
        "shape": lambda shape, colour: shape == meaning,
        "thing": lambda shape, colour: f"{colour} {shape}" == meaning,
    }[layer]


THINGS = [f"{colour} {shape}" for colour in COLORS for shape in SHAPES]
KNOWN = [("colour", c) for c in COLORS] + [("shape", s) for s in SHAPES] + [("thing", t) for t in THINGS]


@pytest.mark.parametrize(("layer", "meaning"), KNOWN)
def test_every_picture_that_holds_it_comes_before_any_that_does_not(seen, layer, meaning):
    means = holds(layer, meaning)
    channel = MEANINGS[layer].index(meaning)
    clear, absent = [], []
    for i in range(COUNT):
        left = [share for shape, colour, _, share in seen.shown(i) if means(shape, colour)]
        if any(share == 1 for share in left):
            clear.append(i)
        elif not any(left):
            absent.append(i)
    values = seen.values[layer][:, channel]
    assert len(clear) >= COUNT // 20
    assert values[clear].min() > values[absent].max()


@pytest.mark.parametrize(("layer", "meaning"), KNOWN)
def test_the_winning_place_is_where_it_was_drawn(seen, layer, meaning):
    means = holds(layer, meaning)
    channel, top = seen.top(layer, meaning, COUNT // 20)
    for i in top:
        box = seen.box(layer, channel, i)
        drawn = [(true, share) for shape, colour, true, share in seen.shown(i) if means(shape, colour)]
        if layer == "colour":  # the unit looks at less than a shape
            assert any(box.intersect(true).area > box.area / 3 for true, _ in drawn)
        else:
            assert any(box.contains(true) or (share < 1 and box.intersect(true).area) for true, share in drawn)


def test_a_unit_can_be_negative_everywhere_and_still_have_a_top(seen):
    values = seen.values["colour"][:, HUES.index("cyan")]
    assert values.max() < 0
    assert len(values.unique()) > COUNT // 2


def test_the_template_of_the_right_size_wins(seen):
    """The main shape's size in input pixels is that of the hardest driven template, but for half a step."""
    errors = []
    for i in range(COUNT):
        if len(SOURCE.truth(i)) > 1:
            continue
        shape, _, box = SOURCE.truth(i)[0]
        scale = seen.placements[i].resized[0] / seen.placements[i].source[0]
        best = MEANINGS["template"][int(seen.values["template"][i].argmax())]
        assert best.startswith(shape)
        errors.append(float(best.split()[2]) / (box.width * scale) - 1)
    assert len(errors) > 10
    assert max(map(abs, errors)) < 0.12


def test_meanings_name_every_channel():
    network = models.load("shapes")
    with torch.inference_mode():
        sizes = {}
        taps = {name: lambda output, name=name: sizes.update({name: output.shape[1]}) for name in MEANINGS}
        with tapped(network.module, taps):
            assert network.module(network.blank()).shape == (1, len(MEANINGS["thing"]))
    assert sizes == {name: len(meanings) for name, meanings in MEANINGS.items()}
    assert network.class_names == tuple(MEANINGS["thing"])
    assert all(torch.isfinite(parameter).all() for parameter in network.module.parameters())


def test_it_is_the_same_network_each_time_and_takes_no_weights():
    assert models.load("shapes").weights == models.load("shapes", pretrained=False).weights
    with pytest.raises(ModelError, match="set by hand: leave out --weights"):
        models.load("shapes", Path("mine.safetensors"))

import numpy as np
import pytest
import torch
from torch import nn

from patchmine.fields.effective import Hit, effective_field, energy_of
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import ReceptiveField
from patchmine.networks.taps import survey
from patchmine.units import Box, Position

SIZE = (48, 48)


def measured(net):
    net = net.eval()
    layer = next(reversed([name for name, _ in net.named_modules() if name]))
    (tap,) = survey(net, torch.zeros(1, 3, *SIZE), [layer])
    field = receptive_fields(net, SIZE, [layer])[layer]
    torch.manual_seed(0)
    places = [(n % field.channels, Position(18 + n, 24 - n)) for n in range(8)]
    hits = [Hit(channel, at, field.center(channel, at), torch.randn(3, *SIZE)) for channel, at in places]
    return field, effective_field(energy_of(net, tap, hit) for hit in hits)


def box_conv(size, weight):
    conv = nn.Conv2d(3, 2, size, bias=False)
    with torch.no_grad():
        conv.weight[:] = torch.as_tensor(weight)
    return nn.Sequential(conv)


@pytest.mark.parametrize("size", [3, 5, 9])
def test_equal_weights_spread_the_energy_evenly_over_the_square(size):
    _, share = measured(box_conv(size, 1.0))
    areas = np.array([(2 * r + 1) ** 2 for r in range(size // 2 + 1)])
    assert share[: len(areas)] == pytest.approx(areas / size**2)
    assert (share[len(areas) :] == 1).all()


def test_a_kernel_of_even_size_has_its_center_between_pixels():
    _, share = measured(box_conv(4, 1.0))
    assert share[:2] == pytest.approx([4 / 16, 1.0])


def test_a_single_tap_off_the_center_is_found_at_its_distance():
    weight = torch.zeros(2, 3, 7, 7)
    weight[:, :, 3, 5] = 1  # two pixels to the right of the center
    _, share = measured(box_conv(7, weight))
    assert share[:4] == pytest.approx([0, 0, 1, 1])


def test_deep_stacks_look_at_less_than_they_see():
    torch.manual_seed(1)
    net = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(10)))
    field, share = measured(net)
    assert field.groups[0].size == (21, 21)
    assert share[5] > 0.9
    assert (np.diff(share) >= 0).all()


def test_no_gradient_is_said_and_not_invented():
    class Dead(nn.Module):
        def forward(self, x):
            return x * 0

    assert measured(nn.Sequential(Dead()))[1] is None


def test_the_box_holds_the_share_and_stays_in_the_field():
    field, share = measured(box_conv(9, 1.0))
    field = ReceptiveField(**{**field.__dict__, "effective": share})
    middle = Position(20, 20)
    assert field.effective_box(0, middle, 1.0) == field.group(0).whole(middle) == Box(20, 20, 29, 29)
    assert field.effective_box(0, middle, 24.9 / 81) == Box(22, 22, 27, 27)
    assert field.effective_box(0, middle, 25.1 / 81) == Box(21, 21, 28, 28)
    assert ReceptiveField(**{**field.__dict__, "effective": None}).effective_box(0, middle, 0.5) is None

import pytest
import torch
from torch import nn

from patchmine.errors import ModelError
from patchmine.networks.layouts import layout_of
from patchmine.networks.network import weights_digest
from patchmine.networks.taps import run_until, survey, tapped


def hooks_of(module):
    return {name: len(m._forward_hooks) + len(m._forward_pre_hooks) for name, m in module.named_modules()}


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(inplace=True), nn.Conv2d(4, 5, 3), nn.Flatten()).eval()


def test_the_tap_sees_the_output_before_it_is_overwritten_in_place():
    net, seen = small(), []
    with torch.inference_mode(), tapped(net, {"0": lambda output: seen.append(output.min().item())}):
        net(torch.randn(1, 3, 8, 8))
    assert seen[0] < 0


def test_after_any_exit_the_hooks_are_as_before():
    net = small()
    net[2].register_forward_hook(lambda *_: None)
    before = hooks_of(net)
    with tapped(net, {"0": print, "2": print}):
        assert hooks_of(net) != before
    assert hooks_of(net) == before
    with pytest.raises(ZeroDivisionError), tapped(net, {"0": print}):
        raise ZeroDivisionError
    with pytest.raises(ModelError, match="unknown layer 'x'"), tapped(net, {"0": print, "x": print}):
        pass
    with pytest.raises(RuntimeError):
        run_until(net, torch.zeros(1, 99, 8, 8), "2")
    assert hooks_of(net) == before


def test_running_until_a_layer_stops_there():
    net, called = small(), []
    net[2].register_forward_hook(lambda *_: called.append(2))
    with torch.inference_mode():
        run_until(net, torch.randn(1, 3, 8, 8), "1")
    assert called == []


def test_a_layer_that_is_never_called_is_named():
    net = small()
    net.spare = nn.Conv2d(3, 3, 1)
    net.forward = lambda x: net[0](x)
    with pytest.raises(ModelError, match="'spare'"):
        survey(net, torch.zeros(1, 3, 8, 8), ["0", "spare"])
    with torch.inference_mode(), pytest.raises(ModelError, match="'spare'"):
        run_until(net, torch.zeros(1, 3, 8, 8), "spare")


def test_survey_goes_in_the_order_of_the_network_and_counts_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first, self.act = nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 1), nn.ReLU()

        def forward(self, x):
            return self.act(self.second(self.act(self.first(x))))

    taps = survey(Twice().eval(), torch.zeros(1, 3, 8, 8), ["act", "second", "first"])
    assert [(tap.layer, tap.calls) for tap in taps] == [("first", 1), ("second", 1), ("act", 2)]


def test_a_layer_that_returns_no_tensor_is_refused():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ModelError, match="tuple"):
        survey(nn.Sequential(Pair()), torch.zeros(1, 3, 8, 8), ["0"])


def test_vectors_are_grids_of_one_cell():
    layout = layout_of("fc", nn.Linear(3, 7), torch.zeros(2, 7))
    assert (layout.channels, layout.grid) == (7, (1, 1))
    assert layout.grid_of(torch.zeros(2, 7)).shape == (2, 7, 1, 1)


def test_the_digest_of_weights_sees_every_bit():
    net = small()
    before = weights_digest(net)
    assert weights_digest(small()) == before
    with torch.no_grad():
        net[2].bias[0] = torch.nextafter(net[2].bias[0], torch.tensor(9.0))
    assert weights_digest(net) != before

"""Executors: what they return is what plain torch says, whichever computes and however batches are cut."""

import importlib.util
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from patchmine import executors
from patchmine.errors import RequestError
from patchmine.executors import Setting
from patchmine.executors._reduce import reduce
from patchmine.networks.folding import folded, replica
from patchmine.networks.taps import at_call, survey, tapped
from patchmine.photographs.decode import normalized

INSTALLED = [name for name in executors.kinds.names if executors.kinds.find(name).missing() is None]
SETTING = Setting(device="cpu", precision="fp32", batch_size=4, threads=1)


def open_bounds(taps):
    return {
        tap.layer: (np.full(tap.layout.channels, -np.inf, np.float32), np.full(tap.layout.channels, 2**32 - 1))
        for tap in taps
    }


@pytest.fixture(scope="module")
def maps(network, taps, pixels):
    """Of each layer, from the network as it is."""
    found = {}
    keep = {t.layer: at_call(t, lambda out, t=t: found.__setitem__(t.layer, out.clone())) for t in taps}
    with torch.inference_mode(), tapped(network.module, keep):
        network.module(normalized(pixels, network.preprocessing))
    return found


@pytest.mark.parametrize("name", INSTALLED)
def test_values_places_and_vectors_are_those_of_plain_torch(name, network, taps, pixels, maps):
    executor = executors.build(name, network, taps, SETTING, 1)
    images = np.arange(10, 15)
    parts = [executor.run(pixels[a:b], images[a:b], open_bounds(taps)) for a, b in ((0, 4), (4, 5))]
    for tap in taps:
        expected = maps[tap.layer].flatten(2)
        scale = float(expected.abs().max())
        value = np.concatenate([part[tap.layer].value for part in parts])
        assert np.abs(value - expected.amax(2).numpy()).max() <= 1e-4 * scale
        position = torch.from_numpy(np.concatenate([part[tap.layer].position for part in parts]))
        at = expected.gather(2, position[..., None])[..., 0]
        assert (expected.amax(2) - at).max() <= 1e-4 * scale  # the same place, or one that ties
        first = parts[0][tap.layer]
        vectors = expected[torch.from_numpy(first.row), :, torch.from_numpy(first.place)].numpy()
        assert np.abs(first.vectors - vectors).max() <= 2e-3 * scale


@pytest.mark.parametrize("name", INSTALLED)
def test_several_lanes_at_once_compute_what_one_does(name, network, taps, pixels):
    executor = executors.build(name, network, taps, SETTING, 3)
    images = np.arange(4)
    alone = executor.run(pixels[:4], images, open_bounds(taps))
    found = []

    def lane():
        torch.set_num_threads(1)
        for _ in range(3):
            found.append(executor.run(pixels[:4], images, open_bounds(taps)))

    threads = [threading.Thread(target=lane) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 9
    for reduced in found:
        for layer, of_layer in alone.items():
            np.testing.assert_allclose(reduced[layer].value, of_layer.value, rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks for module in network.module.modules())


def test_an_executor_device_or_precision_that_is_not_there_says_what_is(network, taps, monkeypatch):
    with pytest.raises(RequestError, match="did you mean torch"):
        executors.build("trch", network, taps, SETTING, 1)
    with pytest.raises(RequestError, match="did you mean bf16"):
        executors.build("torch", network, taps, replace(SETTING, precision="bf61"), 1)
    with pytest.raises(RequestError, match="leave --device out"):
        executors.build("torch", network, taps, replace(SETTING, device="warp"), 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'patchmine\[openvino\]'"):
        executors.build("openvino", network, taps, SETTING, 1)


@pytest.mark.skipif("openvino" not in INSTALLED, reason="OpenVINO is not installed")
def test_openvino_reports_to_nobody():
    executors.kind("openvino").precisions()
    from openvino.tools.ovc import convert_impl, telemetry_utils

    assert {part.tm.__name__.rpartition(".")[2] for part in (convert_impl, telemetry_utils)} == {"telemetry_stub"}


@pytest.mark.skipif("openvino" not in INSTALLED, reason="OpenVINO is not installed")
def test_openvino_refuses_what_it_cannot_do(network, taps):
    with pytest.raises(RequestError, match="computes on the CPU"):
        executors.build("openvino", network, taps, replace(SETTING, device="cuda"), 1)
    whole = replace(network, preprocessing=replace(network.preprocessing, view="whole"))
    with pytest.raises(RequestError, match="one size"):
        executors.build("openvino", whole, taps, SETTING, 1)
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in able:
        with pytest.raises(RequestError, match="no bf16 for OpenVINO: choose from fp32"):
            executors.build("openvino", network, taps, replace(SETTING, precision="bf16"), 1)


@pytest.mark.parametrize("contiguous", [True, False])
def test_reduction_takes_the_first_of_equals_and_never_what_is_not_finite(contiguous):
    maps = torch.zeros(2, 3, 2, 2)
    maps[0, 0] = torch.tensor([[1.0, 5.0], [5.0, 2.0]])
    maps[0, 1, 1, 0] = torch.inf
    maps[1, 2, 1, 1] = torch.nan
    if not contiguous:
        maps = maps.contiguous(memory_format=torch.channels_last)
    bound = (np.array([4.0, 0.0, -1.0], np.float32), np.array([9, 9, 9]))
    reduced = reduce(maps, np.array([0, 1]), bound)
    assert reduced.position[0].tolist() == [1, 2, 0]
    assert reduced.value[0].tolist() == [5.0, np.inf, 0.0]
    assert np.isnan(reduced.value[1, 2])
    # 5.0 beats its bound; 0.0 of image 1 ties with a bound of a later image; what is not finite never counts.
    assert list(zip(reduced.row.tolist(), reduced.place.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
    assert np.isfinite(reduced.vectors[:2]).all()


class Branches(nn.Module):
    """A convolution whose output two things read, one that only a norm reads, and one that is called twice."""

    def __init__(self):
        super().__init__()
        self.shared, self.shared_norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.own, self.own_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.twice, self.twice_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.running_mean)
                nn.init.uniform_(part.running_var, 0.5, 2)
                nn.init.uniform_(part.weight, 0.5, 2)

    def forward(self, x):
        made = self.shared(x)
        x = self.shared_norm(made) + made
        x = self.own_norm(self.own(x)).relu()
        return self.twice_norm(self.twice(self.twice_norm(self.twice(x))))


def fold(layers, module=None):
    torch.manual_seed(0)
    module = (module or Branches()).eval()
    blank = torch.zeros(1, 3, 16, 16)
    taps = survey(module, blank, layers)
    return module, folded(module, taps, blank)


def test_only_a_norm_that_alone_reads_a_convolution_is_folded():
    module, found = fold(["twice_norm"])
    assert isinstance(found.shared_norm, nn.BatchNorm2d)
    assert isinstance(found.twice_norm, nn.BatchNorm2d)
    assert not isinstance(found.own_norm, nn.BatchNorm2d)
    picture = torch.randn(2, 3, 16, 16)
    assert torch.allclose(module(picture), found(picture), atol=1e-4)
    assert isinstance(module.own_norm, nn.BatchNorm2d)


def test_a_tapped_convolution_keeps_its_norm():
    module, found = fold(["own", "twice_norm"])
    assert isinstance(found.own_norm, nn.BatchNorm2d)
    assert module.own.weight is found.own.weight


def test_a_container_that_ends_in_a_convolution_is_noticed_by_comparing():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.norm = nn.Sequential(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)
            nn.init.uniform_(self.norm.running_mean, 1, 2)

        def forward(self, x):
            return self.norm(self.part(x))

    _, found = fold(["part", "norm"], Wrapped())
    assert isinstance(found.norm, nn.BatchNorm2d)


def test_a_replica_shares_weights_and_not_hooks():
    module = Branches().eval()
    copy = replica(module)
    assert all(a is b for a, b in zip(module.parameters(), copy.parameters(), strict=True))
    assert all(a is b for a, b in zip(module.buffers(), copy.buffers(), strict=True))
    copy.own.register_forward_hook(lambda *_: None)
    assert not module.own._forward_hooks

"""Relevance of the units of a network in a batch of photographs: one forward pass, one backward pass from a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue

import torch
from torch import Tensor, nn

from patchmine.errors import ModelError
from patchmine.networks.calls import module_and_call
from patchmine.networks.folding import channels_last, deep_copy, folded, replica
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap
from patchmine.photographs.decode import normalized
from patchmine.ranking import Float32, Int64
from patchmine.relevance.rules import Rules

_TOLERANCE = 1e-4  # as a share of the largest output


@dataclass(frozen=True)
class LayerRelevance:
    """The relevance of a layer's units in a batch.

    `sum` and `maximum` float32 and `position` int64, all (images, units): over the positions of the grid, with the
    first place y * grid width + x that holds the maximum. `conserved` and `placed` float32 (images,): the sum over the
    whole output of the layer, and over the grid alone, without tokens that have no position, both divided by the start.
    """

    sum: Float32
    maximum: Float32
    position: Int64
    conserved: Float32
    placed: Float32


@dataclass(frozen=True)
class Propagated:
    """The result of one batch: the class that each image was asked about, the relevance that started there, which is
    the class's output, and the layers."""

    output: Int64
    start: Float32
    layers: Mapping[str, LayerRelevance]


class Propagator:
    """Propagates relevance with a replica of the network for each lane, so that several threads can.

    `rule` is `plus`, the rules of `relevance.rules`, or `gradient`, which is activation times gradient: on a network
    without biases whose activations are ReLUs it conserves, and is LRP-0. `bypassed` are the layers that do not hold
    all of the relevance, because a path leads around them; `unreached` those on which no output depends. `outputs` is
    the number of classes.

    Raises ModelError for a network whose output is not a vector of classes or that the rules cannot follow.
    """

    def __init__(self, network: Network, taps: Sequence[Tap], rule: str, device: torch.device, lanes: int = 1) -> None:
        self.network, self.taps, self.device = network, tuple(taps), device
        module = _frozen(folded(network.module, taps, network.blank()))
        if device.type != "cpu":
            module = deep_copy(module).to(device)
        channels_last(module)
        self.rules = Rules() if rule == "plus" else None
        self._replicas: SimpleQueue[nn.Module] = SimpleQueue()
        for _ in range(lanes if device.type == "cpu" else 1):
            self._replicas.put(replica(module))
        noise = torch.randn(network.blank().shape, generator=torch.Generator().manual_seed(0)).to(device)
        self.outputs = self._check(noise)
        self.unreached = frozenset(tap.layer for tap in taps if not self._depends([tap.layer], noise))
        self.bypassed = frozenset(
            tap.layer for tap in taps if tap.layer not in self.unreached and self._around(tap, noise)
        )

    def run(self, pixels: Tensor, outputs: Int64 | None = None) -> Propagated:
        """The relevance in a batch: pixels uint8 (N, 3, height, width), and the output to begin at for each image,
        (N,), else the highest."""
        batch = normalized(pixels.to(self.device), self.network.preprocessing)
        batch = batch.contiguous(memory_format=torch.channels_last)
        kept: dict[str, Tensor] = {}
        with self._replica() as module:
            with _tapped(module, self.taps, _leaf(kept)), self._mode():
                found = classes_of(self.network, module(batch))
            chosen = found.detach().argmax(1) if outputs is None else torch.from_numpy(outputs).to(self.device)
            start = found.gather(1, chosen[:, None])[:, 0]
            reached = [tap for tap in self.taps if tap.layer not in self.unreached]
            # Relevance starts as the output itself; a gradient as 1.
            begin = torch.ones_like(start) if self.rules is None else start.detach()
            carried = torch.autograd.grad(start, [kept[tap.layer] for tap in reached], begin)
        layers = {}
        with torch.inference_mode():
            for tap, slope in zip(reached, carried, strict=True):
                relevance = slope * kept[tap.layer].detach() if self.rules is None else slope
                layers[tap.layer] = _reduced(tap, relevance, start.detach())
        return Propagated(chosen.cpu().numpy(), start.detach().float().cpu().numpy(), layers)

    def _mode(self) -> AbstractContextManager[object]:
        return nullcontext() if self.rules is None else self.rules

    @contextmanager
    def _replica(self) -> Iterator[nn.Module]:
        module = self._replicas.get()
        try:
            yield module
        finally:
            self._replicas.put(module)

    def _check(self, noise: Tensor) -> int:
        """The number of outputs, once it is sure that the rules change nothing in the forward pass."""
        with self._replica() as module, torch.no_grad():
            expected = classes_of(self.network, module(noise.clone()))
        with self._replica() as module, self._mode():
            found = module(noise.clone().requires_grad_())
        if not found.requires_grad:
            raise ModelError(
                f"no relevance leaves the output of {self.network.name}: let it return the numbers before the softmax, "
                "computed with gradients"
            )
        largest = float(expected.nan_to_num().abs().max())
        if not torch.allclose(found.detach(), expected, rtol=0, atol=_TOLERANCE * largest, equal_nan=True):
            raise ModelError(f"the rules of relevance cannot follow {self.network.name}: its outputs change under them")
        return expected.shape[1]

    def _depends(self, layers: Sequence[str], noise: Tensor) -> bool:
        """Whether an output depends on one of these layers."""
        kept: dict[str, Tensor] = {}
        taps = [tap for tap in self.taps if tap.layer in layers]
        with self._replica() as module, _tapped(module, taps, _leaf(kept)), self._mode():
            output: Tensor = module(noise)
        return output.requires_grad

    def _around(self, tap: Tap, noise: Tensor) -> bool:
        """Whether an output depends on the input also when the layer's output is held constant."""
        with self._replica() as module, _tapped(module, [tap], lambda _, output: output.detach()), self._mode():
            output: Tensor = module(noise.clone().requires_grad_())
        return output.requires_grad


def classes_of(network: Network, output: object) -> Tensor:
    """The output of the network, (images, classes). Raises ModelError if it is none."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = f"a {type(output).__name__}" if not isinstance(output, Tensor) else f"shape {tuple(output.shape)}"
        raise ModelError(f"{network.name} returns {found}, but relevance needs one number for each class")
    return output


def conserves(module: nn.Module, blank: Tensor) -> bool:
    """Whether activation times gradient conserves by itself: no biases, and outputs that grow with the input.

    By Euler's theorem it does in a function that is homogeneous of degree 1: f(2x) = 2 f(x).
    """
    tensors = [*module.parameters(), *(buffer for buffer in module.buffers() if buffer.is_floating_point())]
    if any(tensor.ndim < 2 for tensor in tensors):
        return False
    noise = torch.randn(blank.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        once, twice = module(noise.clone()), module(2 * noise)
    if not isinstance(once, Tensor) or not once.isfinite().all():
        return False
    return torch.allclose(2 * once, twice, rtol=0, atol=_TOLERANCE * float(twice.abs().max()))


def _frozen(module: nn.Module) -> nn.Module:
    """The replica with parameters that ask for no gradients: its own, as those that it has are the network's too."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None and parameter.requires_grad:
                part._parameters[name] = nn.Parameter(parameter.detach(), requires_grad=False)
    return module


def _leaf(kept: dict[str, Tensor]) -> Callable[[str, Tensor], Tensor]:
    """Keeps each output; relevance is not carried further back than the first. The network goes on with a copy, which
    it may overwrite."""

    def keep(layer: str, output: Tensor) -> Tensor:
        kept[layer] = output if output.requires_grad else output.detach().requires_grad_()
        return kept[layer].clone()

    return keep


@contextmanager
def _tapped(module: nn.Module, taps: Sequence[Tap], change: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Let each layer return `change` of its name and output, at the call that it means."""
    modules = dict(module.named_modules())
    calls: Counter[str] = Counter()
    handles = []

    def hook(tap: Tap) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
        def see(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
            calls[tap.layer] += 1
            return change(tap.layer, output) if calls[tap.layer] == tap.call else None

        return see

    try:
        for tap in taps:
            handles.append(modules[module_and_call(tap.layer, modules)[0]].register_forward_hook(hook(tap)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reduced(tap: Tap, relevance: Tensor, start: Tensor) -> LayerRelevance:
    flat = tap.layout.grid_of(relevance).flatten(2).float()
    maximum, position = flat.max(2)
    summed = flat.sum(2)
    placed = summed.sum(1, dtype=torch.float64)
    # Tokens without a position lie outside the grid.
    everywhere = placed if flat.numel() == relevance.numel() else relevance.flatten(1).sum(1, dtype=torch.float64)
    shares = [(total / start).float() for total in (everywhere, placed)]
    found = [part.cpu().numpy() for part in (summed, maximum, position, *shares)]
    return LayerRelevance(*found)

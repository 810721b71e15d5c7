"""Activation maximization: the image that maximizes a unit of a network, found by gradient ascent.

Works on a bare module, with any canvas; `library` connects it to an index. The network runs only up to the layer, as
a private copy: the given module keeps its hooks, training flags, and gradients, whatever happens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.adam import adam

from patchmine.errors import RequestError
from patchmine.networks.folding import channels_last, deep_copy, finite_weights, folded, replica
from patchmine.networks.taps import Tap, at_call, run_until, survey, tapped
from patchmine.photographs.decode import normalized
from patchmine.photographs.placement import Preprocessing
from patchmine.synthesis.canvas import Canvas
from patchmine.synthesis.movements import Movements, centered
from patchmine.synthesis.objectives import Objective, objective
from patchmine.synthesis.parametrization import Draw, Fourier, Maco, Parametrization, Plain
from patchmine.synthesis.recipe import Advance, Recipe
from patchmine.synthesis.unblocking import Straight
from patchmine.system import allocator
from patchmine.units import Position


@dataclass(frozen=True)
class Synthetic:
    """One synthetic image.

    `picture` uint8 (height, width, 3) is the canvas's window, in sRGB. `activations` float32 (grid height, grid width)
    is the unit's map on the canvas for this 8-bit, unmoved image. `value` is its value at the canvas's position, `mean`
    its mean. `scores` float32 (steps,) is the objective on the moved images, step by step.

    `stopped` is the step at which a value became non-finite: the image is then the last valid one, and at step 0 the
    initial noise. `alive` is False if no gradient ever reached the image; the image is then noise too.
    """

    channel: int
    picture: NDArray[np.uint8]
    canvas: Canvas
    activations: NDArray[np.float32]
    scores: NDArray[np.float32]
    stopped: int | None
    alive: bool

    @property
    def position(self) -> Position:
        assert self.canvas.position is not None
        return self.canvas.position

    @property
    def value(self) -> float:
        return float(self.activations[self.position.y, self.position.x])

    @property
    def mean(self) -> float:
        return float(self.activations.mean())


def synthesize(
    module: nn.Module,
    layer: str,
    channels: Sequence[int],
    canvas: Canvas,
    preprocessing: Preprocessing,
    recipe: Recipe | None = None,
    *,
    start: Tensor | None = None,
    amplitudes: Tensor | None = None,
    advance: Advance = lambda _done, _of: None,
) -> list[Synthetic]:
    """Synthetic images of several units of one layer, as one batch; `recipe.images` of each in turn.

    Only the mean and std of `preprocessing` are used. `start` float32 (units, 3, height, width) in 0..1, as large as
    the canvas's image, replaces the initial noise of each unit's images. The method `maco` needs `amplitudes`, in the
    form of `amplitudes.of_index`. `advance` is called after each step.

    The random numbers of an image depend on the seed and on its number within its unit, not on the other units. The
    same arguments, machine, and number of threads give the same bytes. An image alone may differ from the same image in
    a batch: torch computes gradients of one image in another order than those of several.

    Raises ModelError for an unknown layer. Raises RequestError for a canvas too small for the network, or a channel or
    position out of range.
    """
    recipe = (recipe or Recipe()).settled()
    ascent = Ascent(module, layer, canvas, preprocessing)
    return ascent.run(channels, recipe, start, amplitudes, advance)


class Ascent:
    """A network prepared for one layer and one canvas, reusable for any number of runs."""

    def __init__(self, module: nn.Module, layer: str, canvas: Canvas, preprocessing: Preprocessing) -> None:
        some = next(iter(module.parameters()), torch.zeros(()))
        self.device = some.device
        if self.device.type == "cpu":
            allocator.keep_blocks()
        self.layer, self.preprocessing = layer, preprocessing
        self.original = replica(module)
        self.original.eval()
        self.tap = _surveyed(self.original, layer, canvas)
        self.canvas = _with_position(canvas, self.tap)
        # A deep copy: changing the memory format or a flag of a shared tensor would change the original's.
        fast = deep_copy(folded(finite_weights(self.original), (self.tap,), _blank(canvas).to(self.device)))
        self.module = channels_last(_out_of_place(fast).requires_grad_(False))
        numbers = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in _affine(preprocessing))
        self.gain, self.offset = numbers

    def run(
        self,
        channels: Sequence[int],
        recipe: Recipe,
        start: Tensor | None = None,
        amplitudes: Tensor | None = None,
        advance: Advance = lambda _done, _of: None,
    ) -> list[Synthetic]:
        """Run `synthesize` for a settled recipe."""
        for channel in channels:
            if not 0 <= channel < self.tap.layout.channels:
                raise RequestError(
                    f"{self.layer} has {self.tap.layout.channels} channels, so channel {channel} does not exist"
                )
        each = [channel for channel in channels for _ in range(recipe.images)]
        kind = self._parametrization(recipe, amplitudes)
        climb = _Climb(self, kind, each, recipe, _starts(kind, recipe, len(channels), start).to(self.device))
        with torch.enable_grad(), climb.straight:
            for step in range(recipe.steps):
                climb.step(step)
                advance(step + 1, recipe.steps)
                if climb.over:
                    break
        return self._finished(climb, each)

    def sees(self) -> int:
        """The side in pixels of the layer's field at the canvas's position: the extent of the gradient, on noise.

        The shorter side of the image is an upper bound, and the result if no gradient reaches the image.
        """
        at, box = self.canvas.position, self.canvas.picture
        assert at is not None
        noise = drawing("sees")((1, 3, *self.canvas.size), "normal").to(self.device).requires_grad_()
        with torch.enable_grad():
            total = self.maps(noise)[0, :, at.y, at.x].sum()
            found = torch.autograd.grad(total, noise)[0][0].abs().sum(0) if total.requires_grad else noise[0, 0] * 0
        sides = [int(line.nonzero().max() - line.nonzero().min()) + 1 for d in (0, 1) if (line := found.sum(d)).any()]
        return min(box.width, box.height, *sides)

    def maps(self, inputs: Tensor, module: nn.Module | None = None) -> Tensor:
        """The layer's maps (images, channels, grid height, grid width) for normalized inputs."""
        found: list[Tensor] = []
        module = module or self.module
        with tapped(module, {self.layer: at_call(self.tap, lambda out: found.append(self.tap.layout.grid_of(out)))}):
            run_until(module, inputs, self.layer, self.tap.call)
        return found[0]

    def _parametrization(self, recipe: Recipe, amplitudes: Tensor | None) -> Parametrization:
        size = (self.canvas.picture.height, self.canvas.picture.width)
        if recipe.method == "pixels":
            return Plain(size)
        if recipe.method == "fourier":
            return Fourier(size, self.device)
        if amplitudes is None:
            raise RequestError("--method maco needs the amplitudes of photographs from an index: use --method fourier")
        return Maco(size, self.device, amplitudes)

    def _finished(self, climb: _Climb, each: Sequence[int]) -> list[Synthetic]:
        with torch.inference_mode():
            pictures = (climb.kind.pictures(climb.parameters) * 255).round().clamp(0, 255).to(torch.uint8)
            activations = self.activations(pictures)
        scores = torch.stack(climb.scores, 1).numpy()
        return [
            Synthetic(
                channel=channel,
                picture=pictures[i].permute(1, 2, 0).cpu().contiguous().numpy(),
                canvas=self.canvas,
                activations=activations[i, channel].float().cpu().numpy().copy(),
                scores=scores[i],
                stopped=climb.stopped.get(i),
                alive=not bool(climb.dead[i]),
            )
            for i, channel in enumerate(each)
        ]

    def activations(self, pictures: Tensor) -> Tensor:
        """The maps of the original network for images uint8 (images, 3, height, width) on the canvas."""
        with torch.inference_mode():
            inputs = normalized(pictures.to(self.device), self.preprocessing)
            return torch.cat([self.maps(centered(one[None], self.canvas), self.original).clone() for one in inputs])


class _Climb:
    """The ascent of one batch: Adam (Kingma & Ba 2015), with a step size that falls to 0 over the second half."""

    def __init__(
        self, ascent: Ascent, kind: Parametrization, channels: Sequence[int], recipe: Recipe, parameters: Tensor
    ) -> None:
        self.ascent, self.kind, self.recipe = ascent, kind, recipe
        self.parameters = parameters
        moving = ascent.sees() if recipe.one_position and recipe.jitter else None
        draw = drawing(recipe.seed, "movements")
        self.movements = Movements(ascent.canvas, recipe, draw, ascent.gain, ascent.offset, moving)
        of = torch.tensor(channels, device=ascent.device)
        assert ascent.canvas.position is not None
        self.objective: Objective = objective(recipe, of, ascent.canvas.position)
        self.straight = Straight(ascent.module, len(channels), ascent.device)
        self.mean, self.square = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self.moves = torch.zeros((), device=ascent.device)
        self.previous = parameters
        self.scores: list[Tensor] = []
        self.stopped: dict[int, int] = {}
        self.dead = torch.zeros(len(channels), dtype=torch.bool)

    @property
    def over(self) -> bool:
        return all(image in self.stopped or dead for image, dead in enumerate(self.dead.tolist()))

    def step(self, number: int) -> None:
        scores, gradient = self._gradient()
        sizes = gradient.flatten(1).abs().amax(1)
        both = torch.stack((scores, sizes)).cpu()
        if not bool(both.isfinite().all()):
            self._stop(number, ~both.isfinite().all(0), gradient)
        self.scores.append(both[0])
        self.dead |= self.straight.saw(both[1] == 0)
        self.previous = self.parameters.clone()
        self._move(number, gradient)
        for image in self.stopped:
            self.parameters[image] = self.previous[image]

    def _gradient(self) -> tuple[Tensor, Tensor]:
        parameters = self.parameters.detach().requires_grad_()
        inputs = self.movements.placed(self.kind.pictures(parameters))
        scores = self.objective(self.ascent.maps(inputs.contiguous(memory_format=torch.channels_last))).float()
        if not scores.requires_grad:  # the score does not depend on the input
            return scores.detach(), torch.zeros_like(parameters)
        (gradient,) = torch.autograd.grad(scores.sum(), parameters, allow_unused=True)
        return scores.detach(), torch.zeros_like(parameters) if gradient is None else gradient

    def _move(self, number: int, gradient: Tensor) -> None:
        assert self.recipe.rate is not None
        adam(
            [self.parameters],
            [gradient.contiguous()],  # the fused form ignores strides
            [self.mean],
            [self.square],
            [],
            [self.moves],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.recipe.rate * min(1.0, 2 * (1 - number / self.recipe.steps)),
            weight_decay=0.0,
            eps=1e-12,
            maximize=True,
        )
        self.kind.confine(self.parameters)

    def _stop(self, number: int, bad: Tensor, gradient: Tensor) -> None:
        """Reset images that became non-finite to their previous step, and freeze them."""
        for image in bad.nonzero().flatten().tolist():
            gradient[image] = 0
            self.mean[image], self.square[image] = 0, 0
            if image not in self.stopped:
                self.stopped[image] = number
                self.parameters[image] = self.previous[image]


def drawing(*what: object) -> Draw:
    """An independent source of random numbers for each `what`, identical on every device."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))

    def draw(shape: tuple[int, ...], kind: str) -> Tensor:
        return (torch.randn if kind == "normal" else torch.rand)(shape, generator=generator)

    return draw


def _starts(kind: Parametrization, recipe: Recipe, units: int, start: Tensor | None) -> Tensor:
    found = []
    for unit in range(units):
        for number in range(recipe.images):
            noise = kind.start(drawing(recipe.seed, "start", number))
            if start is None:
                found.append(noise)
            else:  # several images from one start would be the same image
                found.append(kind.inverse(start[unit]) + (noise if number else 0))
    return torch.stack(found)


def _out_of_place(module: nn.Module) -> nn.Module:
    """Make activations preserve their input: autograd runs faster this way, and `Straight` requires it."""
    for part in module.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]
    return module


def _surveyed(module: nn.Module, layer: str, canvas: Canvas) -> Tap:
    height, width = canvas.size
    try:
        return survey(module, _blank(canvas).to(next(iter(module.parameters()), torch.zeros(())).device), [layer])[0]
    except RuntimeError as error:
        raise RequestError(
            f"the network cannot take a canvas of {width}x{height} pixels ({str(error).splitlines()[0]}); "
            "give a larger --size, or leave it out"
        ) from None


def _with_position(canvas: Canvas, tap: Tap) -> Canvas:
    rows, columns = tap.layout.grid
    if rows < 1 or columns < 1:
        raise RequestError(
            f"a canvas of {canvas.size[1]}x{canvas.size[0]} pixels is too small: {tap.layer} has no cell; "
            "give a larger --size, or leave it out"
        )
    place = canvas.position or Position(rows // 2, columns // 2)
    if not (0 <= place.y < rows and 0 <= place.x < columns):
        raise RequestError(f"{place} is outside the grid of {tap.layer}, which has {columns}x{rows} cells there")
    return Canvas(canvas.size, canvas.window, place)


def _blank(canvas: Canvas) -> Tensor:
    return torch.zeros(1, 3, *canvas.size)


def _affine(preprocessing: Preprocessing) -> tuple[list[float], list[float]]:
    """Gain and offset that normalize colors in 0..1."""
    pairs = list(zip(preprocessing.mean, preprocessing.std, strict=True))
    return [1 / std for _, std in pairs], [-mean / std for mean, std in pairs]


__all__ = ["Ascent", "Synthetic", "drawing", "synthesize"]

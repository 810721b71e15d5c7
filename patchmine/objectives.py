"""What a picture is optimized for, as one number for each picture, from the maps of the layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from patchmine.recipe import Recipe
from patchmine.units import Position

Objective = Callable[[Tensor], Tensor]
"""From maps (images, channels, grid height, grid width) to scores (images,), of which more is better."""


def objective(recipe: Recipe, channels: Tensor, position: Position) -> Objective:
    """The recipe's, for pictures that are meant for these channels, int64 (images,)."""
    images = torch.arange(len(channels), device=channels.device)

    def neuron(maps: Tensor) -> Tensor:
        return maps[images, channels, position.y, position.x]

    def channel(maps: Tensor) -> Tensor:
        return maps[images, channels].mean((1, 2))

    def negative(maps: Tensor) -> Tensor:
        return -neuron(maps)

    def diverse(maps: Tensor) -> Tensor:
        driven = neuron(maps)
        return driven - recipe.diversity * driven.detach().abs() * likeness(maps, recipe.images)

    return {"neuron": neuron, "channel": channel, "negative": negative, "diverse": diverse}[recipe.objective]


def likeness(maps: Tensor, group: int) -> Tensor:
    """How alike each picture is to the others of its group of so many that follow one another, (images,).

    The mean cosine of their Gram matrices: which channels go together, wherever they do (the style of Gatys et al.
    2015, as Olah et al. 2017 use it).
    """
    flat = maps.flatten(2)
    grams = torch.bmm(flat, flat.transpose(1, 2)).flatten(1)
    unit = torch.nn.functional.normalize(grams, dim=1).unflatten(0, (-1, group))
    cosines = torch.bmm(unit, unit.transpose(1, 2))
    return ((cosines.sum(2) - 1) / max(group - 1, 1)).flatten()

"""What a picture is optimized for, as one number for each picture, from the maps of the layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from patchmine.synthesis.recipe import Recipe
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
        others = maps[:, :, position.y, position.x].clone()
        others[images, channels] = 0
        return driven - recipe.diversity * driven.detach().abs() * likeness(others, recipe.images)

    return {"neuron": neuron, "channel": channel, "negative": negative, "diverse": diverse}[recipe.objective]


def likeness(vectors: Tensor, group: int) -> Tensor:
    """How alike each vector (images, channels) is to the others of its group of so many that follow one another.

    The mean cosine, (images,). Of what all other channels do at the unit's own place, and not, as Olah et al. 2017
    have it, of which channels go together anywhere: pictures then differ in what drives the unit, not around it.
    """
    unit = normalize(vectors, dim=1).unflatten(0, (-1, group))
    cosines = torch.bmm(unit, unit.transpose(1, 2))
    return ((cosines.sum(2) - 1) / max(group - 1, 1)).flatten()

"""Objectives of the optimization: one number for each image, from the maps of the layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from patchmine.synthesis.recipe import Recipe
from patchmine.units import Position

Objective = Callable[[Tensor], Tensor]
"""From maps (images, channels, grid height, grid width) to scores (images,); higher is better."""


def objective(recipe: Recipe, channels: Tensor, position: Position) -> Objective:
    """The recipe's objective, for images that target these channels, int64 (images,)."""
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
    """The mean cosine between each vector (images, channels) and the others of its group: (images,).

    A group is `group` consecutive vectors. Each vector holds the other channels at the unit's own position. Olah et al.
    2017 instead compare which channels occur together anywhere. With this choice, images differ in what drives the unit
    and not in its surroundings.
    """
    unit = normalize(vectors, dim=1).unflatten(0, (-1, group))
    cosines = torch.bmm(unit, unit.transpose(1, 2))
    return ((cosines.sum(2) - 1) / max(group - 1, 1)).flatten()

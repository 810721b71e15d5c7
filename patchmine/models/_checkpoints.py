"""Finds the weights of a network in a checkpoint as trainers write it: inside containers, under prefixes, with a head
of another task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
"""Names that torch.compile, sharding, activation checkpoints and data parallelism put among those of the modules."""

BESIDE = ("num_batches_tracked", "total_ops", "total_params", "n_averaged")
"""Last names of tensors that do not matter in eval mode: counters of batch norms, of profilers and of averages."""

_DEPTH = 8


@dataclass(frozen=True)
class Fit:
    """The tensors of a checkpoint that fit a network.

    `tensors` are by the network's names. `inner` is the prefix of the part of the network that they are for, `prefixes`
    what was stripped from the names of the checkpoint, `others` the prefixes of further weights that fit as well.
    `missing` are the network's names without a tensor, `differing` those of them whose tensor has another shape, with
    that shape. `extra` are the names of the checkpoint beside those that fit, without the prefix.
    """

    tensors: dict[str, Tensor]
    inner: str
    prefixes: tuple[str, ...]
    others: tuple[str, ...]
    missing: tuple[str, ...]
    differing: dict[str, tuple[int, ...]]
    extra: tuple[str, ...]


def flat(document: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in a checkpoint under its dotted name: containers and state dicts count as modules do."""
    if isinstance(document, Tensor):
        yield path, document
    elif isinstance(document, Mapping) and depth < _DEPTH:
        for key, value in document.items():
            if isinstance(key, str):
                yield from flat(value, f"{path}.{key}" if path else key, depth + 1)


def fit(own: Mapping[str, Tensor], checkpoint: Mapping[str, Tensor]) -> Fit:
    """The weights in a flat checkpoint that fit a state dict: those under the prefix that gives most of them.

    A head may lie under a second prefix beside the first, as in `backbone.` and `head.`. If a network lies inside
    another one, the checkpoint may be of the inner one alone.
    """
    found = _unwrapped(checkpoint, own)
    places = _places(found)
    choices = [(inner, prefix, count) for inner in _inner(own) for prefix, count in _counts(own, inner, found, places)]
    choices = choices or [("", "", 0)]
    most = max(count for _, _, count in choices)
    best = sorted((choice for choice in choices if choice[2] == most), key=lambda choice: _rank(choice[1]))
    inner, prefix, _ = best[0]
    names = {name: prefix + name.removeprefix(inner) for name in own if name.startswith(inner)}
    used = {name: where for name, where in names.items() if where in found and found[where].shape == own[name].shape}
    prefixes = [prefix]
    if prefix:
        left = [name for name in names if name not in used]
        second = _head(own, left, found, places, prefix)
        if second is not None:
            prefixes.append(second)
            used |= {name: second + name for name in left if _fits(own, name, found, second + name)}
    missing = tuple(name for name in own if name not in used)
    taken = set(used.values()) | set(names.values())
    return Fit(
        tensors={name: found[where] for name, where in used.items()},
        inner=inner,
        prefixes=tuple(prefixes),
        others=tuple(dict.fromkeys(other for _, other, _ in best[1:] if other != prefix)),
        missing=missing,
        differing={name: tuple(found[names[name]].shape) for name in missing if names.get(name) in found},
        extra=tuple(where.removeprefix(prefix) for where in found if where.startswith(prefix) and where not in taken),
    )


def _unwrapped(checkpoint: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint without the names of wrappers, except those that the network has too."""
    drop = set(WRAPPERS) - {part for name in own for part in name.split(".")}
    found: dict[str, Tensor] = {}
    for name, tensor in checkpoint.items():
        found.setdefault(".".join(part for part in name.split(".") if part not in drop), tensor)
    return found


def _places(found: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The prefixes under which each name lies in a checkpoint: the empty one, or one that ends with a dot."""
    places: dict[str, list[str]] = {}
    for name in found:
        parts = name.split(".")
        for start in range(len(parts)):
            prefix = "".join(f"{part}." for part in parts[:start])
            places.setdefault(name.removeprefix(prefix), []).append(prefix)
    return places


def _inner(own: Mapping[str, Tensor]) -> Iterator[str]:
    """The prefixes of the network itself and of the networks in it that hold at least half of its tensors."""
    inner, names = "", list(own)
    while True:
        yield inner
        firsts = [name.removeprefix(inner).split(".")[0] for name in names if "." in name.removeprefix(inner)]
        most = max(set(firsts), key=firsts.count, default=None)
        if most is None or 2 * firsts.count(most) < len(own):
            return
        inner += f"{most}."
        names = [name for name in names if name.startswith(inner)]


def _fits(own: Mapping[str, Tensor], name: str, found: Mapping[str, Tensor], where: str) -> bool:
    return where in found and found[where].shape == own[name].shape


def _counts(
    own: Mapping[str, Tensor], inner: str, found: Mapping[str, Tensor], places: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, int]]:
    """How many tensors of a network fit, by the prefix under which they lie, in the order of the checkpoint."""
    counts: dict[str, int] = {}
    for name in own:
        if name.startswith(inner):
            rest = name.removeprefix(inner)
            for prefix in places.get(rest, ()):
                counts[prefix] = counts.get(prefix, 0) + _fits(own, name, found, prefix + rest)
    yield from ((prefix, count) for prefix, count in counts.items() if count)


def _rank(prefix: str) -> tuple[bool, bool]:
    """Prefers a teacher to its student (as DINO does), and weights to their average."""
    return "teacher" not in prefix, "ema" in prefix


def _head(
    own: Mapping[str, Tensor],
    left: Sequence[str],
    found: Mapping[str, Tensor],
    places: Mapping[str, Sequence[str]],
    trunk: str,
) -> str | None:
    """A prefix beside the trunk's under which all tensors lie that the trunk lacks; None without one."""
    beside = [prefix for prefix in places.get(left[0], ()) if not prefix.startswith(trunk)] if left else []
    return next((prefix for prefix in beside if all(_fits(own, name, found, prefix + name) for name in left)), None)

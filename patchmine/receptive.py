"""Exact receptive fields of any layer of any network, by abstract interpretation.

The network runs once on a blank input. Every operator of aten that it calls is also applied to what its operands
can see of the input (`reach`, `field_rules`), so there is no table of layer types and no graph to capture:
residual, concatenated and shuffled branches, functional calls and modules called twice come out by themselves.

A field is structural: what an activation depends on whatever the weights and the picture are. A weight that
happens to be zero, or a ReLU that is off, does not shrink it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from patchmine.errors import FieldError, ModelError
from patchmine.field_rules import Call, NoRuleError, Seen, Unknown, constant, rule_for, tensors_in
from patchmine.geometry import FieldGroup, ReceptiveField
from patchmine.network import Layout, layout_of, tapped
from patchmine.reach import (
    FULL_HIGH,
    FULL_LOW,
    GLOBAL,
    HIGH,
    INF,
    LOW,
    MINUS_STEP,
    PLANES,
    STEP,
    WHOLE_HIGH,
    WHOLE_LOW,
    Reach,
    compact,
    expanded,
    of_input,
    reshaped,
)


def receptive_fields(
    module: nn.Module,
    input_size: tuple[int, int],
    layers: Sequence[str],
    *,
    channels: int = 3,
    field: Literal["local", "full"] = "local",
) -> dict[str, ReceptiveField]:
    """The receptive fields of layers, for one input of (height, width) pixels; of a layer's last call.

    `full` is everything that an activation depends on. `local` holds constant whatever was computed from the whole
    picture at once (squeeze-and-excite gates, attention, norms over the picture) and differs from `full` only
    where the status is `whole_input`; layers that have nothing else, such as a classifier, keep the full field.

    Raises ModelError for an unknown layer, one that is not called, and one that is no grid; FieldError where the
    field cannot be determined, among them networks that fail on an input of this size.
    """
    height, width = input_size
    some = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    blank = torch.zeros(1, channels, height, width, dtype=some.dtype, device=some.device)
    observer = Observer(blank, of_input(height, width))
    found: dict[str, tuple[Layout, Seen, tuple[int, ...]]] = {}
    modules = dict(module.named_modules())

    def tap(layer: str) -> Callable[[Tensor], None]:
        def see(output: Tensor) -> None:
            layout = layout_of(layer, modules[layer], output, input_size)
            found[layer] = layout, observer.seen_by(output), tuple(output.shape)

        return see

    training = [name or "the network" for name, part in modules.items() if part.training]
    if training:
        raise FieldError(f"{training[0]} is in training mode: call eval() on the network first")
    with (
        torch.no_grad(),
        tapped(module, {layer: tap(layer) for layer in layers}),
        _followed(modules, observer),
    ):
        try:
            with observer:
                module(blank)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            raise FieldError(
                f"the network fails on an input of {height}x{width} in {observer.here}: {_line(error)}"
            ) from error
    for layer in layers:
        if layer not in found:
            raise ModelError(f"layer {layer!r} is not called in a forward pass in eval mode")
    return {layer: _field(layer, *found[layer], input_size, field) for layer in layers}


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _followed(modules: dict[str, nn.Module], observer: Observer) -> Iterator[None]:
    """Keep `observer.layer` at the name of the innermost module that is running."""
    outer: list[str] = []
    handles = []

    def enter(name: str) -> Callable[..., None]:
        def note(*_: object) -> None:
            outer.append(observer.layer)
            observer.layer = name

        return note

    def leave(*_: object) -> None:
        observer.layer = outer.pop()

    try:
        for name, part in modules.items():
            if name:
                handles.append(part.register_forward_pre_hook(enter(name)))
                handles.append(part.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


# Following the operators ----------------------------------------------------------------------------------


class _Memory:
    """What is known of one storage: the reach of the tensor last written to it, and that tensor's place in it."""

    __slots__ = ("__weakref__", "place", "seen", "version")

    def __init__(self, place: _Place, seen: Seen) -> None:
        self.place = place
        self.seen = seen
        self.version = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor lies in its storage, in elements; `room` is the length of the storage."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    room: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Place:
        room = tensor.untyped_storage().nbytes() // tensor.element_size()
        return cls(tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), room)

    def fills_its_room(self) -> bool:
        """Whether it covers every element of the storage, each once."""
        expected = 1
        for stride, length in sorted((s, n) for s, n in zip(self.stride, self.size, strict=True) if n > 1):
            if stride != expected:
                return False
            expected *= length
        return expected == self.room and self.offset == 0


@dataclass(slots=True)
class _Known:
    """What is known of one tensor, as of a version of its memory."""

    memory: _Memory
    seen: Seen
    version: int


class Observer(TorchDispatchMode):
    """While it is entered, every operator's reach is worked out beside its value.

    Views share their memory with their base, so what is written in place through one of them is seen by all.
    """

    def __init__(self, source: Tensor, reach: Reach) -> None:
        super().__init__()
        self.layer = ""
        self._known = WeakTensorKeyDictionary()
        self._memories: WeakValueDictionary[int, _Memory] = WeakValueDictionary()
        self._learn(source, reach)

    @property
    def here(self) -> str:
        return f"layer {self.layer!r}" if self.layer else "its forward"

    def seen_by(self, tensor: Tensor) -> Seen:
        """What the elements of a tensor reach, now: None for a constant."""
        known = self._known.get(tensor)
        if known is None:
            memory = self._memory_of(tensor)
            if memory is None or memory.seen is None:
                return None
            known = _Known(memory, None, -1)
            self._known[tensor] = known
        if known.version != known.memory.version:
            known.seen = _read(known.memory, _Place.of(tensor))
            known.version = known.memory.version
        seen: Seen = known.seen
        return seen

    def _memory_of(self, tensor: Tensor) -> _Memory | None:
        return self._memories.get(tensor.untyped_storage()._cdata)

    def _learn(self, tensor: Tensor, seen: Seen) -> None:
        """A tensor that an operator returned."""
        memory = self._memory_of(tensor)
        if memory is None:
            memory = _Memory(_Place.of(tensor), seen)
            self._memories[tensor.untyped_storage()._cdata] = memory
        self._known[tensor] = _Known(memory, seen, memory.version)

    def _write(self, tensor: Tensor, seen: Seen) -> None:
        """A tensor that an operator wrote to."""
        memory = self._memory_of(tensor)
        if memory is None:
            return self._learn(tensor, seen)
        place = _Place.of(tensor)
        if place.fills_its_room():
            memory.place, memory.seen = place, seen
        else:
            memory.place, memory.seen = _written(memory, place, seen)
        memory.version += 1
        self._known[tensor] = _Known(memory, seen, memory.version)
        return None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        arguments = _bound(func, args, kwargs)
        inputs = [tensor for value in arguments.values() for tensor in tensors_in(value)]
        seen = {id(tensor): self.seen_by(tensor) for tensor in inputs}
        # Noted before the operator runs: it may change the shape of a tensor in place.
        shapes = [tuple(tensor.shape) for tensor in inputs]
        result = func(*args, **kwargs)
        outputs = _outputs(result)
        changed = [
            tensor
            for argument in func._schema.arguments
            if argument.alias_info is not None and argument.alias_info.is_write
            for tensor in tensors_in(arguments.get(argument.name))
        ]
        reaches = self._reaches(func, arguments, outputs, changed, seen, result)
        if any(tuple(t.shape) != shape for t, shape in zip(inputs, shapes, strict=True)):
            reaches = [Unknown(f"{func} in {self.here} changes a tensor's shape in place")] * len(reaches)
        written = {id(tensor) for tensor in changed}
        for tensor, reach in zip(outputs, reaches, strict=False):
            if id(tensor) not in written:
                self._learn(tensor, reach)
        for tensor, reach in zip(changed, reaches[len(outputs) :], strict=True):
            self._write(tensor, reach)
        return result

    def _reaches(
        self,
        func: Any,
        arguments: dict[str, Any],
        outputs: Sequence[Tensor],
        changed: Sequence[Tensor],
        seen: dict[int, Seen],
        result: Any,
    ) -> list[Seen]:
        """The reach of every output, then of every argument that was written to."""
        count = len(outputs) + len(changed)
        for known in seen.values():
            if isinstance(known, Unknown):
                return [known] * count
        if all(known is None for known in seen.values()):
            return [None] * count
        if not outputs and not changed and result is not None:
            raise FieldError(
                f"{self.here} looks at a value ({func}) and decides by it: its receptive fields depend on the picture"
            )
        rule = rule_for(func)
        if rule is None:
            return [Unknown(f"there is no rule for {func} in {self.here}")] * count

        def reach_of(tensor: Tensor) -> Reach | None:
            reach = seen.get(id(tensor))
            assert not isinstance(reach, Unknown)
            return reach

        try:
            reaches = rule(Call(func, arguments, outputs or changed, reach_of))
        except NoRuleError as missing:
            return [Unknown(f"there is no rule for {func} in {self.here} where {missing}")] * count
        listed = reaches if isinstance(reaches, list) else [reaches]
        targets = outputs or changed
        for tensor, reach in zip(targets, listed, strict=True):
            if isinstance(reach, Reach):
                _check(func, tensor, reach)
        by_tensor = {id(tensor): reach for tensor, reach in zip(targets, listed, strict=True)}
        written = Unknown(f"{func} in {self.here} writes to several tensors")
        return [*(listed if outputs else []), *(by_tensor.get(id(tensor), written) for tensor in changed)]


def _check(func: Any, tensor: Tensor, reach: Reach) -> None:
    for half in (reach.rows, reach.cols):
        fits = half.ndim == tensor.ndim + 1 and all(
            a in (1, b) for a, b in zip(half.shape[1:], tensor.shape, strict=True)
        )
        assert fits and half.shape[0] == PLANES, (str(func), tuple(tensor.shape), tuple(half.shape))


def _bound(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an operator by name, defaults filled in."""
    arguments = {}
    for index, argument in enumerate(func._schema.arguments):
        if index < len(args) and not argument.kwarg_only:
            arguments[argument.name] = args[index]
        elif argument.name in kwargs:
            arguments[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            arguments[argument.name] = argument.default_value
    return arguments


def _outputs(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, list | tuple):
        return [tensor for item in result for tensor in _outputs(item)]
    return []


def _flat(memory: _Memory) -> tuple[Tensor, Tensor]:
    """The reach of every element of a storage: two tensors (planes, elements)."""
    place = memory.place
    flats = []
    reach = memory.seen if isinstance(memory.seen, Reach) else constant(len(place.size))
    for half in (reach.rows, reach.cols):
        flat = torch.full((PLANES, place.room), INF)
        _strided(flat, place).copy_(expanded(half, place.size))
        flats.append(flat)
    return flats[0], flats[1]


def _strided(flat: Tensor, place: _Place) -> Tensor:
    return flat.as_strided((PLANES, *place.size), (flat.shape[1], *place.stride), place.offset)


def _read(memory: _Memory, place: _Place) -> Seen:
    """The reach of the tensor at a place, from what was last written to its memory."""
    if not isinstance(memory.seen, Reach) or memory.place == place:
        return memory.seen
    if memory.place.room != place.room:
        return Unknown("a tensor is read as another type than it was written")
    rows, cols = _flat(memory)
    return Reach(compact(_strided(rows, place)), compact(_strided(cols, place)))


def _written(memory: _Memory, place: _Place, seen: Seen) -> tuple[_Place, Seen]:
    """The memory's new place and reach after a part of it was written."""
    whole = _Place((place.room,), (1,), 0, place.room)
    for state in (memory.seen, seen):
        if isinstance(state, Unknown):
            return whole, state
    if memory.seen is None and seen is None:
        return memory.place, None
    if memory.place.room != place.room:
        return whole, Unknown("a tensor is written as another type than it was made")
    reach = seen or constant(len(place.size))
    assert isinstance(reach, Reach)
    rows, cols = _flat(memory)
    _strided(rows, place).copy_(expanded(reach.rows, place.size))
    _strided(cols, place).copy_(expanded(reach.cols, place.size))
    return whole, Reach(rows, cols)


# Reading the result ---------------------------------------------------------------------------------------


def _field(
    layer: str,
    layout: Layout,
    seen: Seen,
    shape: tuple[int, ...],
    input_size: tuple[int, int],
    field: Literal["local", "full"],
) -> ReceptiveField:
    """The receptive field of a layer from the reach of its output."""
    if isinstance(seen, Unknown):
        raise FieldError(f"the receptive field of layer {layer!r} cannot be determined: {seen.reason}")
    if seen is None:
        raise FieldError(f"the output of layer {layer!r} does not depend on the input")
    if shape[0] != 1:
        raise FieldError(f"the output of layer {layer!r} has shape {shape}: not one grid for one picture")
    height, width = layout.grid
    on_grid = _on_grid(seen, layout, shape)
    rows = _along(layer, on_grid.rows, 3, layout.channels, height)
    cols = _along(layer, on_grid.cols, 2, layout.channels, width)
    widened = (rows[GLOBAL] < INF).any() or (cols[GLOBAL] < INF).any()
    # (planes, channels): a channel keeps its full field where holding the gates constant leaves nothing of it.
    local = (rows[LOW] < INF).any(1) & (cols[LOW] < INF).any(1)
    if field == "full" and widened:
        local = torch.zeros_like(local)
    groups = []
    for start, stop in _runs(rows, cols, local):
        by_axis = []
        for planes, length in ((rows, input_size[0]), (cols, input_size[1])):
            mine = planes[:, start]
            low, high = (LOW, HIGH) if local[start] else (FULL_LOW, FULL_HIGH)
            seen_rows = _intervals(mine[low], mine[high], length)
            form = _form(mine, seen_rows) if local[start] else None
            by_axis.append((seen_rows, form))
        (row_ends, down), (col_ends, across) = by_axis
        regular = down is not None and across is not None
        size, stride, offset = (
            ((down[i], across[i]) for i in range(3)) if down and across and regular else (None, None, None)
        )
        groups.append(FieldGroup((start, stop), row_ends, col_ends, size, stride, offset))
    return ReceptiveField(
        layer=layer,
        channels=layout.channels,
        grid=layout.grid,
        input=input_size,
        status="whole_input" if widened else "exact",
        groups=tuple(groups),
        local=bool(widened and local.any()),
    )


def _on_grid(reach: Reach, layout: Layout, shape: tuple[int, ...]) -> Reach:
    """The reach as (planes, 1, channels, grid height, grid width), as `Layout.grid_of` reads the output."""
    if layout.order != "tokens":
        order = {
            "nchw": lambda p: p,
            "nhwc": lambda p: p.permute(0, 1, 4, 2, 3),
            "vector": lambda p: p[..., None, None],
        }
        return reach.each(order[layout.order])

    def places(planes: Tensor) -> Tensor:
        if planes.shape[2] > 1:
            planes = planes[:, :, layout.prefix :]
        return planes.transpose(2, 3)

    old = (1, layout.channels, shape[1] - layout.prefix)
    return reshaped(reach.each(places), old, (1, layout.channels, *layout.grid)).each(compact)


def _along(layer: str, planes: Tensor, across: int, channels: int, length: int) -> Tensor:
    """(planes, channels, length) of one axis, from planes on the grid; `across` is the other axis.

    The full field must be the same all along the other axis, or nothing (a border of constant padding); the others
    need only have a place there whose field holds the rest, as a gate may be dropped at some places alone.
    Anything else is no product of rows and columns, or is read as the wrong grid.
    """
    planes = planes[:, 0]
    if planes.shape[across] > 1:
        hull = planes.amin(across, keepdim=True)
        same = planes == hull
        for low, high in ((FULL_LOW, FULL_HIGH), (LOW, HIGH), (WHOLE_LOW, WHOLE_HIGH)):
            reached = same[low] & same[high]
            holds = reached.any(across - 1) if low != FULL_LOW else reached | (planes[low] == INF)
            if not bool(holds.all()):
                raise FieldError(
                    f"the receptive fields of layer {layer!r} are no product of rows and columns, "
                    "or its output is no grid"
                )
        planes = hull
    return planes.squeeze(across).expand(PLANES, channels, length)


def _runs(rows: Tensor, cols: Tensor, local: Tensor) -> list[tuple[int, int]]:
    """Runs of consecutive channels whose fields are the same."""
    keys = torch.cat([rows.transpose(0, 1).flatten(1), cols.transpose(0, 1).flatten(1), local[:, None]], 1)
    ends = ((keys[1:] != keys[:-1]).any(1).nonzero()[:, 0] + 1).tolist()
    return list(zip([0, *ends], [*ends, len(keys)], strict=True))


def _intervals(low: Tensor, high: Tensor, length: int) -> NDArray[np.int32]:
    """Half-open intervals int32 (positions, 2); [0, 0) for a position that sees nothing."""
    empty = low == INF
    ends = torch.stack([low.masked_fill(empty, 0), (1 - high).masked_fill(empty, 0)], 1)
    assert float(ends.min()) >= 0 and float(ends.max()) <= length, "a field reaches beyond the input"
    return ends.numpy().astype(np.int32)


def _form(planes: Tensor, seen: NDArray[np.int32]) -> tuple[int, int, int] | None:
    """(size, stride, offset) such that position y sees [offset + y * stride, ... + size) before clipping."""
    low, high = planes[WHOLE_LOW].double().numpy(), 1 - planes[WHOLE_HIGH].double().numpy()
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    step = float(planes[STEP, 0])
    known = np.isfinite(step) and bool((planes[STEP] == step).all() and (planes[MINUS_STEP] == -step).all())
    if len(low) > 1:
        stride = low[1] - low[0]
        if len(low) == 2 and not (known and step == stride):
            return None
    elif known:
        stride = step
    else:
        return None
    size, offset = high[0] - low[0], low[0]
    at = offset + stride * np.arange(len(low))
    inside = seen[:, 1] > seen[:, 0]
    if (
        stride < 1
        or any(float(value) != int(value) for value in (size, stride, offset))
        or (low != at).any()
        or (high != at + size).any()
        or (at > seen[:, 0])[inside].any()
        or (at + size < seen[:, 1])[inside].any()
    ):
        return None
    return int(size), int(stride), int(offset)

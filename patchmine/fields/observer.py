"""Watches a network while it runs, and computes the reach of every operator's output beside its value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

from patchmine.fields.calls import Call, NoRuleError, Seen, Unknown, constant, tensors_in
from patchmine.fields.reach import INF, PLANES, Reach, compact, expanded
from patchmine.fields.rules import rule_for
from patchmine.networks.dispatching import Dispatching

# These change how a tensor views its memory, but not the memory itself.
RESHAPING = frozenset(
    "aten::" + name
    for name in ("as_strided", "as_strided_", "squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_")
)


class _Memory:
    """The known facts about one storage: the reach of the tensor last written to it, and that tensor's place in it."""

    __slots__ = ("__weakref__", "place", "seen", "version")

    def __init__(self, place: _Place, seen: Seen) -> None:
        self.place = place
        self.seen = seen
        self.version = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of a tensor in its storage, in elements; `room` is the length of the storage."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    room: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Place:
        room = tensor.untyped_storage().nbytes() // tensor.element_size()
        return cls(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), room)

    def fills_its_room(self) -> bool:
        """Whether the tensor covers every element of the storage exactly once."""
        expected = 1
        for stride, length in sorted((s, n) for s, n in zip(self.stride, self.size, strict=True) if n > 1):
            if stride != expected:
                return False
            expected *= length
        return expected == self.room and self.offset == 0


@dataclass(slots=True)
class _Known:
    """The known facts about one tensor, at a version of its memory; -1 means not yet read."""

    memory: _Memory
    seen: Seen
    version: int


# Ways out of torch that bypass its operators.
ESCAPES = frozenset(["numpy", "tolist", "__array__", "__dlpack__", "data_ptr"])


class _Escapes(TorchFunctionMode):
    """Reports to an observer when the network reads values out of torch."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.observer = observer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in ESCAPES and args and isinstance(args[0], Tensor) and self.observer.seen_by(args[0]) is not None:
            self.observer.decides(f"Tensor.{name}")
        return func(*args, **(kwargs or {}))


class Observer(Dispatching):
    """Tracks the reach of every tensor computed from `source` while the mode is active.

    Views share memory with their base, so a write in place through one of them is visible in all. A call without a rule
    yields Unknown, which is passed on to everything computed from it. Everything after a decision that depends on a
    value is Unknown too. `layer` is the innermost running module, for messages. `own` is true while an error would come
    from this module and not from the network.
    """

    def __init__(self, source: Tensor, reach: Reach) -> None:
        super().__init__()
        self.layer = ""
        self.own = False
        self._decided: Unknown | None = None
        self._known = WeakTensorKeyDictionary()
        self._memories: WeakValueDictionary[int, _Memory] = WeakValueDictionary()
        self._learn(source, reach)

    @property
    def here(self) -> str:
        return f"layer {self.layer!r}" if self.layer else "its forward"

    @contextmanager
    def following(self, modules: dict[str, nn.Module]) -> Iterator[None]:
        """Observe these modules for the duration of the block, and keep `layer` up to date."""
        outer: list[str] = []
        handles = []

        def enter(name: str) -> Callable[..., None]:
            def note(*_: object) -> None:
                outer.append(self.layer)
                self.layer = name

            return note

        def leave(*_: object) -> None:
            self.layer = outer.pop()

        try:
            for name, part in modules.items():
                if name:
                    handles.append(part.register_forward_pre_hook(enter(name)))
                    handles.append(part.register_forward_hook(leave))
            with self, _Escapes(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def decides(self, func: object) -> None:
        """Mark everything from here on as unknown: the network has read a value."""
        self._decided = Unknown(f"{self.here} reads a value ({func}), so the fields may depend on the image")

    def seen_by(self, tensor: Tensor) -> Seen:
        """The current reach of a tensor's elements; None for a constant."""
        if self._decided is not None:
            return self._decided
        known = self._known.get(tensor)
        if known is None:
            # No operator returned it: a parameter, or another name for a known tensor (`tensor.data`).
            memory = self._memory_of(tensor)
            if memory is None:
                return None
            known = self._known[tensor] = _Known(memory, None, -1)
        if known.version != known.memory.version:
            with _disable_current_modes():
                known.seen = _read(known.memory, _Place.of(tensor))
            known.version = known.memory.version
        seen: Seen = known.seen
        return seen

    def _memory_of(self, tensor: Tensor) -> _Memory | None:
        return self._memories.get(tensor.untyped_storage()._cdata)

    def _learn(self, tensor: Tensor, seen: Seen, version: int | None = None) -> None:
        """Record a tensor that an operator returned. Version -1: read it from its memory later."""
        memory = self._memory_of(tensor)
        if memory is None:
            memory = _Memory(_Place.of(tensor), seen)
            self._memories[tensor.untyped_storage()._cdata] = memory
        self._known[tensor] = _Known(memory, seen, memory.version if version is None else version)

    def _write(self, tensor: Tensor, seen: Seen) -> None:
        """Record a tensor that an operator wrote to."""
        memory = self._memory_of(tensor)
        if memory is None:
            self._learn(tensor, seen)
            return
        place = _Place.of(tensor)
        if place.fills_its_room():
            memory.place, memory.seen = place, seen
        else:
            memory.place, memory.seen = _written(memory, place, seen)
        memory.version += 1
        self._known[tensor] = _Known(memory, seen, memory.version)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        arguments = _bound(func, args, kwargs)
        inputs = [tensor for value in arguments.values() for tensor in tensors_in(value)]
        # Before the operator runs, because it may write to its arguments.
        seen = {id(tensor): self.seen_by(tensor) for tensor in inputs}
        for tensor in inputs:
            if tensor not in self._known:
                self._learn(tensor, seen[id(tensor)])
        if rule_for(func) is None:
            # A forward in inference mode calls operators whole that autograd would have taken apart.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self.own = True
        self._follow(func, arguments, _outputs(result), seen, result)
        self.own = False
        return result

    def _follow(
        self, func: Any, arguments: dict[str, Any], outputs: list[Tensor], seen: dict[int, Seen], result: Any
    ) -> None:
        """Record the tensors that an operator returned and wrote to."""
        if func._schema.name in RESHAPING:
            for tensor in outputs:
                self._learn(tensor, None, version=-1)
            return
        written = [
            tensor
            for argument in func._schema.arguments
            if argument.alias_info is not None and argument.alias_info.is_write
            for tensor in tensors_in(arguments.get(argument.name))
        ]
        if not outputs and not written and result is not None and any(seen.values()):
            self._decided = Unknown(f"{self.here} reads a value ({func}), so the fields may depend on the image")
            return
        targets = [*outputs, *(t for t in written if all(t is not output for output in outputs))]
        for tensor, reach in zip(targets, self._reaches(func, arguments, outputs, targets, seen), strict=True):
            if any(tensor is one for one in written):
                self._write(tensor, reach)
            else:
                self._learn(tensor, reach)

    def _reaches(
        self,
        func: Any,
        arguments: dict[str, Any],
        outputs: Sequence[Tensor],
        targets: Sequence[Tensor],
        seen: dict[int, Seen],
    ) -> Sequence[Seen]:
        """The reach of each target: all outputs, then all other tensors that the operator wrote to."""
        for known in seen.values():
            if isinstance(known, Unknown):
                return [known] * len(targets)
        if not any(seen.values()):
            return [None] * len(targets)
        rule = rule_for(func)
        if rule is None:
            return [Unknown(f"there is no rule for {func} in {self.here}")] * len(targets)
        if outputs and len(targets) > len(outputs):
            return [Unknown(f"{func} in {self.here} also writes to its arguments")] * len(targets)

        def reach_of(tensor: Tensor) -> Reach | None:
            reach = seen.get(id(tensor))
            return reach if isinstance(reach, Reach) else None

        try:
            found = rule(Call(func, arguments, targets, reach_of))
        except NoRuleError as missing:
            return [Unknown(f"there is no rule for {func} in {self.here} where {missing}")] * len(targets)
        reaches = found if isinstance(found, list) else [found]
        for tensor, reach in zip(targets, reaches, strict=True):
            if isinstance(reach, Reach):
                _fits(func, tensor, reach)
        return reaches


def _fits(func: Any, tensor: Tensor, reach: Reach) -> None:
    for half in (reach.rows, reach.cols):
        fits = half.shape[0] == PLANES and half.ndim == tensor.ndim + 1
        fits = fits and all(a in (1, b) for a, b in zip(half.shape[1:], tensor.shape, strict=True))
        assert fits, f"the rule for {func} gave {tuple(half.shape)} for a tensor of shape {tuple(tensor.shape)}"


def _bound(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an operator by name, with defaults filled in."""
    arguments: dict[str, Any] = {}
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
    """The reach of the tensor at a place, from the last write to its memory."""
    if not isinstance(memory.seen, Reach) or memory.place == place:
        return memory.seen
    if memory.place.room != place.room:
        return Unknown("a tensor is read with another data type than it was written with")
    rows, cols = _flat(memory)
    return Reach(compact(_strided(rows, place)), compact(_strided(cols, place)))


def _written(memory: _Memory, place: _Place, seen: Seen) -> tuple[_Place, Seen]:
    """The new place and reach of the memory after a write to part of it."""
    whole = _Place((place.room,), (1,), 0, place.room)
    for state in (memory.seen, seen):
        if isinstance(state, Unknown):
            return whole, state
    if memory.seen is None and seen is None:
        return memory.place, None
    if memory.place.room != place.room:
        return whole, Unknown("a tensor is written with another data type than it was created with")
    reach = seen or constant(len(place.size))
    assert isinstance(reach, Reach)
    rows, cols = _flat(memory)
    _strided(rows, place).copy_(expanded(reach.rows, place.size))
    _strided(cols, place).copy_(expanded(reach.cols, place.size))
    return whole, Reach(rows, cols)

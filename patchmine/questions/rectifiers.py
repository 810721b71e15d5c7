"""The network up to a layer in a form that captum handles: every call of a rectifier becomes a module of its own.

captum's GuidedBackprop and Deconvolution hook only modules of class nn.ReLU. A ReLU6, or a ReLU called as a function,
silently keeps its plain gradient. All hooks of a module share one place for the gradient, so a ReLU called by two
branches takes the gradient of the other branch. The value that a hook returns replaces the whole gradient of the
rectifier's input, including the part from a shortcut around it (captum 0.9, `_utils/common.py`,
`_register_backward_hook`).

Here each call of a rectifier goes to a module that is called once, with an input that feeds nothing else. Any step that
is neither a rectifier nor in PASSING is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from patchmine.errors import ModelError, RequestError
from patchmine.networks.taps import Tap, at_call, run_until, tapped

# Autograd steps whose backward pass is the same for a gradient, a deconvnet, and guided backpropagation.
SUMS = {
    "Add",
    "Addmm",
    "Convolution",
    "CudnnConvolution",
    "MiopenConvolution",
    "MkldnnConvolution",
    "Neg",
    "Sub",
    "Sum",
}
MEANS = {"AdaptiveAvgPool2D", "AvgPool2D", "Mean", "UpsampleBilinear2D", "UpsampleNearest2D"}
SCALES = {"CudnnBatchNorm", "MiopenBatchNorm", "NativeBatchNorm"}
MOVES = {"Alias", "AsStrided", "Expand", "Permute", "PixelShuffle", "PixelUnshuffle", "ReshapeAlias", "Roll", "T"}
MOVES |= {"Transpose", "Squeeze", "UnsafeView", "Unsqueeze", "View"}
PARTS = {"Cat", "Index", "Select", "Slice", "Split", "SplitWithSizes", "Stack", "Unbind", "UnsafeSplit"}
COPIES = {"AccumulateGrad", "Clone", "Copy", "CopyBackwards", "CopySlices", "Repeat", "ToCopy"}
BORDERS = {"ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D"}
# Autograd steps whose backward pass may depend on the image: the switches of a maximum, products, norms.
CHOICES = {"AdaptiveMaxPool2D", "Amax", "Max", "MaxPool2DWithIndices"}
PRODUCTS = {"Bmm", "Div", "Mm", "Mul", "NativeGroupNorm", "NativeLayerNorm"}
DEPENDING = CHOICES | PRODUCTS
PASSING = SUMS | MEANS | SCALES | MOVES | PARTS | COPIES | BORDERS | DEPENDING


class Rectifier(nn.ReLU):
    """A ReLU, or one with a ceiling such as ReLU6; captum treats both as an nn.ReLU."""

    def __init__(self, ceiling: float | None) -> None:
        super().__init__()
        self.ceiling = ceiling

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) if self.ceiling is None else F.hardtanh(x, 0.0, self.ceiling)


class Until(nn.Module):
    """Maps images (images, 3, height, width) to the output of a layer.

    The output is float32 (images, channels, grid height, grid width). The network is not a submodule, so hooks on this
    module and changes to it do not reach the network. With `rectified` every call of a rectifier in a forward pass goes
    to one of `rectifiers`, in order; `find` creates them.
    """

    def __init__(self, module: nn.Module, tap: Tap, *, rectified: bool = False) -> None:
        super().__init__()
        self._of = (module, tap)
        self.rectifiers = nn.ModuleList()
        self.rectified = rectified
        self.fixed = False
        """Whether only rectifiers make the backward pass depend on the image; known after `find`."""

    def forward(self, pictures: Tensor) -> Tensor:
        left = iter(self.rectifiers)

        def next_one(_ceiling: float | None) -> nn.Module:
            module = next(left, None)
            if module is None:
                raise ModelError("the network calls more rectifiers for one image than for another")
            return module

        return self._run(pictures, next_one)

    def find(self, picture: Tensor, method: str) -> None:
        """Find the backward pass to an image (1, 3, height, width), and create the rectifiers on it.

        Raises RequestError, naming `method`, if no gradient reaches the image. With `rectified` it also raises if a
        step offers only its plain gradient, for which deconvnets are not defined.
        """
        layer = self._of[1].layer
        picture = picture.clone().requires_grad_()
        found: list[Rectifier] = []
        steps: list[Any] = []

        def one_more(ceiling: float | None) -> nn.Module:
            found.append(Rectifier(ceiling))
            found[-1].register_forward_hook(lambda _module, _inputs, output: steps.append(output.grad_fn))
            return found[-1]

        with torch.enable_grad():
            way = _way_back(self._run(picture, one_more), picture)
        if not way:
            raise RequestError(
                f"no gradient from layer {layer} reaches the image, so --project {method} has nothing to show: "
                "use --project occlusion"
            )
        names = {_name(step) for step in way if step not in steps}
        strange = sorted(names - PASSING) if self.rectified else []
        if strange:
            raise RequestError(
                f"--project {method} is defined only for ReLU and ReLU6, but the path to layer {layer} leads through "
                f"{', '.join(strange)}: use --project gradxinput, ig, or occlusion"
            )
        self.fixed = names.isdisjoint(DEPENDING)
        self.rectifiers = nn.ModuleList(Rectifier(one.ceiling) for one in found)

    def _run(self, pictures: Tensor, rectifier: Callable[[float | None], nn.Module]) -> Tensor:
        module, tap = self._of
        outputs: list[Tensor] = []

        def see(output: Tensor) -> None:
            outputs.append(tap.layout.grid_of(output).float())

        with (
            tapped(module, {tap.layer: at_call(tap, see)}),
            _Rectifying(rectifier) if self.rectified else nullcontext(),
        ):
            run_until(module, pictures, tap.layer, tap.call)
        return outputs[0]


class _Rectifying(TorchFunctionMode):
    """Routes each call of a rectifier to its own module, made by `rectifier(ceiling)`."""

    def __init__(self, rectifier: Callable[[float | None], nn.Module]) -> None:
        super().__init__()
        self.rectifier = rectifier

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        call = _rectification(function, args, kwargs)
        if call is None or not call.input.requires_grad:
            return function(*args, **kwargs)
        # A copy feeds nothing else: captum's hook then returns the gradient of this call alone.
        output = self.rectifier(call.ceiling)(call.input.clone())
        # Code that rectifies in place may use the input afterwards instead of the return value.
        return call.input.copy_(output) if call.in_place else output


@dataclass(frozen=True)
class _Rectification:
    input: Tensor
    ceiling: float | None
    in_place: bool


RELU = (F.relu, torch.relu, Tensor.relu)
RELU_IN_PLACE = (torch.relu_, Tensor.relu_)


def _rectification(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Rectification | None:
    """The rectification in a call of a torch function, or None if the call does not rectify."""
    if function in RELU or function in RELU_IN_PLACE:
        given = {**dict(zip(("input", "inplace"), args, strict=False)), **kwargs}
        return _Rectification(given["input"], None, function in RELU_IN_PLACE or given.get("inplace", False))
    if function is F.relu6:
        given = {**dict(zip(("input", "inplace"), args, strict=False)), **kwargs}
        return _Rectification(given["input"], 6.0, given.get("inplace", False))
    if function is F.hardtanh:
        given = {**dict(zip(("input", "min_val", "max_val", "inplace"), args, strict=False)), **kwargs}
        if given.get("min_val", -1.0) == 0:
            return _Rectification(given["input"], float(given.get("max_val", 1.0)), given.get("inplace", False))
    return None


def _way_back(output: Tensor, picture: Tensor) -> list[Any]:
    """The autograd steps between an output and the image; empty if they are not connected."""
    users: dict[Any, list[Any]] = {}
    waiting, seen, ends = [output.grad_fn], set(), []
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if getattr(step, "variable", None) is picture:
            ends.append(step)
        for source, _ in step.next_functions:
            users.setdefault(source, []).append(step)
            waiting.append(source)
    way: dict[Any, None] = {}
    while ends:
        step = ends.pop()
        if step not in way:
            way[step] = None
            ends += users.get(step, [])
    return list(way)


def _name(step: Any) -> str:
    """The name of a step without its suffix: `Convolution` for `ConvolutionBackward0`."""
    return re.sub(r"Backward\d*$", "", str(step.name()).rpartition("::")[2])


__all__ = ["Rectifier", "Until"]

"""EfficientNet-Lite (M. Tan and Q. V. Le, 2019; TensorFlow's models without squeeze-and-excitation, with ReLU6).

The modules have the names, order and arithmetic of timm's `tf_efficientnet_lite*`, so that layers, state dicts and
activations are equal to those of timm, whose import takes longer than indexing a hundred photographs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, pad

# For each stage: blocks, kernel, stride, expansion, channels; of the network with width and depth 1.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280


@dataclass(frozen=True)
class Scale:
    """How a network of the family differs from Lite0. Stem and head keep their channels; the first and the last stage
    keep their depth."""

    width: float = 1.0
    depth: float = 1.0


class EfficientNetLite(nn.Module):
    """Maps float32 (N, 3, height, width) to 1,000 logits (N, 1000)."""

    def __init__(self, scale: Scale = Scale(), classes: int = 1000) -> None:
        super().__init__()
        self.conv_stem = _conv(3, _STEM, 3, 2)
        self.bn1 = NormAct(_STEM)
        self.blocks = nn.Sequential(*_stages(scale))
        self.conv_head = _conv(_channels(_STAGES[-1][-1], scale), _HEAD, 1)
        self.bn2 = NormAct(_HEAD)
        self.global_pool = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
        self.classifier = nn.Linear(_HEAD, classes)

    def forward(self, batch: Tensor) -> Tensor:
        maps = self.blocks(self.bn1(self.conv_stem(batch)))
        logits: Tensor = self.classifier(self.global_pool(self.bn2(self.conv_head(maps))))
        return logits


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does, depending on the input's size: an odd pixel goes right and below."""

    def forward(self, input: Tensor) -> Tensor:
        missing = [
            max((ceil(length / step) - 1) * step + kernel - length, 0)
            for length, kernel, step in zip(input.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        (above, below), (left, right) = ((lack // 2, lack - lack // 2) for lack in missing)
        padded = pad(input, (left, right, above, below))
        return conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class NormAct(nn.BatchNorm2d):
    """A batch norm, with the activation after it as a module of its own."""

    def __init__(self, channels: int, active: bool = True) -> None:
        super().__init__(channels, eps=1e-3)
        self.drop = nn.Identity()
        self.act: nn.Module = nn.ReLU6(inplace=True) if active else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        normed = batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        activated: Tensor = self.act(self.drop(normed))
        return activated


class _Block(nn.Sequential):
    """A block, run in the order of its modules; the input is added where the shapes allow it."""

    def __init__(self, adds: bool, modules: OrderedDict[str, nn.Module]) -> None:
        super().__init__(modules)
        self.adds = adds

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = super().forward(input)
        return output + input if self.adds else output


def _stages(scale: Scale) -> Iterator[nn.Sequential]:
    inside = _STEM
    for number, (depth, kernel, stride, expansion, channels) in enumerate(_STAGES):
        outside = _channels(channels, scale)
        count = depth if number in (0, len(_STAGES) - 1) else ceil(depth * scale.depth)
        blocks = []
        for place in range(count):
            blocks.append(_block(inside, outside, kernel, 1 if place else stride, expansion))
            inside = outside
        yield nn.Sequential(*blocks)


def _block(inside: int, outside: int, kernel: int, stride: int, expansion: int) -> _Block:
    adds = stride == 1 and inside == outside
    wide = inside * expansion
    depthwise = _conv(wide, wide, kernel, stride, groups=wide)
    unused = {"aa": nn.Identity(), "se": nn.Identity()}
    last = {"drop_path": nn.Identity()}
    if expansion == 1:  # a separable convolution
        return _Block(
            adds,
            OrderedDict(
                conv_dw=depthwise,
                bn1=NormAct(wide),
                **unused,
                conv_pw=_conv(wide, outside, 1),
                bn2=NormAct(outside, active=False),
                **last,
            ),
        )
    return _Block(
        adds,
        OrderedDict(
            conv_pw=_conv(inside, wide, 1),
            bn1=NormAct(wide),
            conv_dw=depthwise,
            bn2=NormAct(wide),
            **unused,
            conv_pwl=_conv(wide, outside, 1),
            bn3=NormAct(outside, active=False),
            **last,
        ),
    )


def _conv(inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Padding with a stride depends on the input; without one it does not."""
    if stride > 1:
        return SameConv2d(inside, outside, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(inside, outside, kernel, padding=(kernel - 1) // 2, groups=groups, bias=False)


def _channels(channels: int, scale: Scale) -> int:
    """The channels times the width, rounded to a multiple of 8, and down by at most a tenth."""
    wanted = channels * scale.width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded

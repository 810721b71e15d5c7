"""Receptive fields against two oracles that share no code with them: NaN probing and gradients (field_oracles)."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from patchmine.errors import FieldError, ModelError
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import ReceptiveField
from patchmine.networks.layouts import layout_of
from patchmine.networks.taps import survey
from patchmine.units import Box, Position
from tests.support.field_oracles import gradient_fields, nan_fields, positive


def fields_of(module, size, layers, field="full"):
    return receptive_fields(module.eval(), size, layers, field=field)


def layouts_of(module, size, layers):
    return {tap.layer: tap.layout for tap in survey(module, torch.zeros(1, 3, *size), layers)}


def intervals(field, axis):
    """(channels, positions, 2)"""
    return np.concatenate([np.repeat(getattr(g, axis)[None], g.channels[1] - g.channels[0], 0) for g in field.groups])


def agree_with_nan(module, size, layers, field="full", batch=8):
    """Every position of every channel; how many intervals were compared."""
    fields = fields_of(module, size, layers, field)
    measured = nan_fields(module, size, layouts_of(module, size, layers), held=field == "local", batch=batch)
    for layer in layers:
        for axis, oracle in zip(("rows", "cols"), measured[layer], strict=True):
            np.testing.assert_array_equal(intervals(fields[layer], axis), oracle, f"{layer} {axis}")
    return sum(rows.shape[0] * rows.shape[1] for rows, _ in measured.values())


def agree_with_gradient(module, size, layers, field="full", places=None):
    """Some positions, with the first and the last group of channels."""
    fields = fields_of(module, size, layers, field)
    samples = []
    for layer in layers:
        height, width = fields[layer].grid
        at = places or {(0, 0), (height - 1, width - 1), (height // 2, width // 3)}
        for group in {g.channels for g in (fields[layer].groups[0], fields[layer].groups[-1])}:
            samples += [(layer, group, place) for place in sorted(at)]
    layouts = layouts_of(module, size, layers)
    boxes = gradient_fields(positive(copy.deepcopy(module)), size, layouts, samples, held=field == "local")
    for (layer, channels, at), box in zip(samples, boxes, strict=True):
        seen = fields[layer].group(channels[0]).seen(Position(*at))
        assert (seen.as_tuple() if seen.area else (0, 0, 0, 0)) == box, (layer, channels, at)


def form(field, group=0):
    found = field.groups[group]
    return found.size, found.stride, found.offset


# Published networks ---------------------------------------------------------------------------------------


def test_the_known_figures():
    from torchvision import models

    resnet50 = fields_of(models.resnet50(), (224, 224), ["layer3", "layer4"])
    assert form(resnet50["layer3"]) == ((267, 267), (16, 16), (-133, -133))
    assert form(resnet50["layer4"]) == ((427, 427), (32, 32), (-213, -213))
    resnet18 = fields_of(models.resnet18(), (224, 224), ["layer4"])["layer4"]
    assert form(resnet18) == ((435, 435), (32, 32), (-217, -217))
    assert {resnet50["layer4"].status, resnet18.status} == {"exact"}
    vgg = fields_of(models.vgg.make_layers(models.vgg.cfgs["D"]), (224, 224), ["28"])["28"]
    assert form(vgg) == ((196, 196), (16, 16), (-90, -90))


def test_googlenet_has_one_field_per_branch():
    from torchvision import models

    net = models.googlenet(init_weights=False)
    field = fields_of(net, (224, 224), ["inception4a"])["inception4a"]
    assert [(g.channels, g.size) for g in field.groups] == [((0, 192), (75, 75)), ((192, 512), (107, 107))]
    assert agree_with_nan(net, (65, 83), ["inception3b", "inception4a"]) > 5000
    agree_with_gradient(net, (65, 83), ["inception3b", "inception4a"])


@pytest.mark.parametrize("size", [(97, 75), (64, 64)])
def test_tensorflow_padding_at_odd_and_even_sizes(size):
    import timm

    net = timm.create_model("tf_efficientnet_lite0")
    layers = ["conv_stem", "blocks.0", "blocks.1", "blocks.3", "blocks.6"]
    assert agree_with_nan(net, size, layers) > 1000
    agree_with_gradient(net, size, layers)


def test_resnet_at_an_odd_size():
    from torchvision import models

    net, layers = models.resnet18(), ["maxpool", "layer1", "layer2.0.conv2", "layer3", "layer4"]
    agree_with_nan(net, (65, 91), layers)
    agree_with_gradient(net, (65, 91), layers)


def test_shuffled_channels_have_fields_of_their_own():
    from torchvision import models

    net = models.shufflenet_v2_x0_5()
    assert len(fields_of(net, (97, 131), ["stage3"])["stage3"].groups) > 10
    agree_with_nan(net, (97, 131), ["stage2", "stage3", "stage4"])


def test_channels_last_layers_inside_convnext():
    import timm
    from torchvision import models

    net = nn.Sequential(models.convnext_tiny().features[:4])
    inner = ["0.1.0.block.2", "0.1.0.block.3", "0.1.0.block.4", "0.3.1.block"]
    fields = fields_of(net, (48, 64), inner)
    assert fields["0.1.0.block.3"].grid == (12, 16)
    assert fields["0.1.0.block.4"].channels == 384
    agree_with_nan(net, (48, 64), inner)
    nhwc = timm.create_model("convnext_atto", conv_mlp=False)
    agree_with_nan(nhwc, (48, 64), ["stages.1.blocks.0.mlp.act", "stages.2"])


def test_gates_are_whole_input_with_the_local_field_beside():
    import timm

    net = timm.create_model("efficientnet_b0")
    net = nn.Sequential(OrderedDict(stem=nn.Sequential(net.conv_stem, net.bn1), blocks=net.blocks[:3]))
    layers = ["blocks.0", "blocks.1", "blocks.2"]
    full, local = (fields_of(net, (65, 91), layers, field) for field in ("full", "local"))
    for layer in layers:
        assert full[layer].status == local[layer].status == "whole_input"
        assert (full[layer].local, local[layer].local) == (False, True)
        assert form(full[layer]) == (None, None, None)
        assert (full[layer].groups[0].rows == (0, 65)).all()
    assert form(local["blocks.2"]) == ((67, 67), (8, 8), (-33, -33))
    agree_with_nan(net, (65, 91), layers, "full")
    agree_with_nan(net, (65, 91), layers, "local")
    agree_with_gradient(net, (65, 91), layers, "local")


def test_tokens_of_a_transformer():
    import timm

    net = timm.create_model("vit_tiny_patch16_224", img_size=(64, 96), depth=2)
    layers = ["blocks.1", "blocks.1.attn.proj"]
    full, local = (fields_of(net, (64, 96), layers, field)["blocks.1"] for field in ("full", "local"))
    assert full.grid == (4, 6)
    assert full.status == local.status == "whole_input"
    assert form(local) == ((16, 16), (16, 16), (0, 0))
    agree_with_nan(net, (64, 96), layers, "full")
    # Nothing is left of an attention's own output without the attention, but its tokens have their squares.
    alone, whole = (fields_of(net, (64, 96), layers, field)["blocks.1.attn.proj"] for field in ("local", "full"))
    assert alone.status == "whole_input"
    assert form(alone) == ((16, 16), (16, 16), (0, 0))
    assert (whole.groups[0].rows == (0, 64)).all()


def test_shifted_windows():
    import timm

    small = {"img_size": (56, 112), "depths": (2, 2), "embed_dim": 24, "num_heads": (2, 2)}
    net = timm.create_model("swin_tiny_patch4_window7_224", **small)
    layers = ["layers.0.blocks.0", "layers.0", "layers.1"]
    fields = fields_of(net, (56, 112), layers)
    assert fields["layers.0.blocks.0"].grid == (14, 28)
    assert fields["layers.0.blocks.0"].groups[0].cols[:8].tolist() == [[0, 28]] * 7 + [[28, 56]]
    agree_with_nan(net, (56, 112), layers)


# One operator at a time -----------------------------------------------------------------------------------


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Parts(nn.Module):
    """The sum, or the concatenation, of branches."""

    def __init__(self, join, *branches):
        super().__init__()
        self.join, self.branches = join, nn.ModuleList(branches)

    def forward(self, x):
        outputs = [branch(x) for branch in self.branches]
        least = [min(o.shape[d] for o in outputs) for d in (2, 3)]
        outputs = [o[:, :, : least[0], : least[1]] for o in outputs]
        return torch.cat(outputs, 1) if self.join == "cat" else sum(outputs)


def squeeze_and_excite(x):
    return x * x.mean((2, 3), keepdim=True).sigmoid()


def write_through_a_view(x):
    x = x * 1
    x[:, :2].add_(F.avg_pool2d(x[:, 2:4], 3, 1, 1))
    x.transpose(2, 3)[:, 4:].mul_(2)
    return x


def write_into_zeros(x):
    out = x.new_zeros(x.shape[0], x.shape[1], x.shape[2] + 3, x.shape[3] + 1)
    out[:, :, 2:-1, 1:] = x
    return out


def attention(x):
    tokens = x.flatten(2).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
    return x + mixed.transpose(1, 2).reshape(x.shape)


def attention_by_hand(x):
    tokens = x.flatten(2).transpose(1, 2)
    weights = (tokens @ tokens.transpose(1, 2)).softmax(-1)
    return x + (weights @ tokens).transpose(1, 2).reshape(x.shape)


def fold_windows(x):
    columns = F.unfold(x, 3, padding=1, stride=2)
    return F.fold(columns, x.shape[2:], 3, padding=1, stride=2)


def dynamic_convolution(x):
    weight = x.mean((2, 3)).reshape(8, 1, 1, 1) * x.new_ones(8, 1, 3, 3)
    return F.conv2d(x, weight, padding=1, groups=8)


OPERATORS = {
    "dilated": nn.Conv2d(8, 8, 3, padding=2, dilation=2),
    "dilated, strided, little padding": nn.Conv2d(8, 8, 5, stride=2, padding=3, dilation=3),
    "even kernel": nn.Conv2d(8, 8, (2, 4), padding=(1, 1)),
    "kernel smaller than stride": nn.Conv2d(8, 8, 2, stride=3),
    "1x1 with padding": nn.Conv2d(8, 8, 1, padding=1),
    "groups": nn.Sequential(Parts("cat", nn.MaxPool2d(3, 1, 1), nn.Identity()), nn.Conv2d(16, 4, 1, groups=2)),
    "same": nn.Conv2d(8, 8, 4, padding="same"),
    "reflect": nn.Conv2d(8, 8, 5, padding=2, padding_mode="reflect"),
    "replicate": nn.Conv2d(8, 8, 5, padding=2, padding_mode="replicate"),
    "circular": nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
    "reflected": nn.ReflectionPad2d((3, 1, 2, 4)),
    "replicated": nn.ReplicationPad2d((3, 1, 2, 4)),
    "cropping pad": Apply(lambda x: F.pad(x, (-2, 1, 3, -1))),
    "max, ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max, ceil, padding": nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
    "max, dilated": nn.MaxPool2d(3, 2, dilation=2),
    "mean, ceil": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False),
    "adaptive, uneven": nn.AdaptiveAvgPool2d((3, 5)),
    "adaptive, overlapping": nn.AdaptiveMaxPool2d((9, 11)),
    "adaptive, rows only": nn.AdaptiveAvgPool2d((None, 1)),
    "adaptive, one": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample((6, 7))),
    "transposed": nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1),
    "transposed with gaps": nn.ConvTranspose2d(8, 8, 2, stride=3),
    "transposed, dilated": nn.ConvTranspose2d(8, 8, 3, stride=2, dilation=2, padding=1),
    "transposed, groups": nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1, groups=2),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest, odd": nn.Upsample((17, 29)),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bicubic down": Apply(lambda x: F.interpolate(x, (5, 7), mode="bicubic")),
    "antialiased": Apply(lambda x: F.interpolate(x, (5, 7), mode="bilinear", antialias=True)),
    "shuffle up": nn.PixelShuffle(2),
    "shuffle down": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 0)), nn.PixelUnshuffle(2)),
    "channel shuffle": nn.Sequential(Parts("cat", nn.Identity(), nn.MaxPool2d(3, 1, 1)), nn.ChannelShuffle(4)),
    "residual of another size": Parts("sum", nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 7, padding=1)),
    "dense": Parts("cat", nn.Conv2d(8, 3, 3, padding=1), nn.Identity(), nn.MaxPool2d(3, 1, 1)),
    "strided slices": Apply(lambda x: torch.cat([x[:, :, 0:10:2, 0:12:2], x[:, :, 1:11:2, 1:13:2]], 1)),
    "roll": Apply(lambda x: x.roll((2, -1), (2, 3))),
    "flip": Apply(lambda x: x + x.flip(3)),
    "cumulative": Apply(lambda x: x.cumsum(2)),
    "picked rows": Apply(lambda x: x[:, :, [4, 0, 2]]),
    "picked pixels": Apply(lambda x: x[:, :, torch.arange(5)[:, None], torch.arange(1, 7)]),
    "unfolded": Apply(lambda x: x.unfold(2, 3, 2).sum(-1)),
    "folded windows": Apply(fold_windows),
    "masked": Apply(lambda x: x.masked_fill(torch.arange(x.shape[3]) % 3 == 0, 0.0)),
    "where": Apply(lambda x: torch.where(torch.arange(8)[:, None, None] < 3, x, F.max_pool2d(x, 3, 1, 1))),
    "in place through a view": Apply(write_through_a_view),
    "written into zeros": Apply(write_into_zeros),
    "in place": nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True), Apply(lambda x: x.add_(1))),
    "data": Apply(lambda x: x.data + 0),
    "channels last norm": Apply(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)),
    "group norm": nn.GroupNorm(2, 8),
    "instance norm": nn.InstanceNorm2d(8),
    "response norm": nn.LocalResponseNorm(3),
    "gate": Apply(squeeze_and_excite),
    "gate of rows": Apply(lambda x: x * x.mean(3, keepdim=True)),
    "global response": Apply(lambda x: x * x.norm(dim=(2, 3), keepdim=True)),
    "attention": Apply(attention),
    "attention by hand": Apply(attention_by_hand),
    "token mixing": Apply(lambda x: F.linear(x.flatten(2), x.new_ones(130, 180)).unflatten(2, (10, 13))),
    "weights from the picture": Apply(dynamic_convolution),
    "softmax over channels": Apply(lambda x: x.softmax(1) * x),
    "fourier": Apply(lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[2:])),
    "two linear layers": Apply(lambda x: (x.movedim(1, -1) @ x.new_ones(8, 5)).movedim(-1, 1)),
    "einsum": Apply(lambda x: torch.einsum("nchw,ck->nkhw", x, x.new_ones(8, 6))),
    "chunks": Apply(lambda x: torch.stack(x.chunk(2, 1), 2).flatten(1, 2).repeat(1, 2, 1, 1)),
    "glu": Apply(lambda x: F.glu(torch.cat([F.max_pool2d(x, 3, 1, 1), x], 1), 1)),
}  # fmt: skip


def around(part):
    """The operator between two convolutions, so that it meets fields that are no single pixels and is padded after."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), copy.deepcopy(part))
    with torch.no_grad():
        channels = net.eval()(torch.zeros(1, 3, 23, 29)).shape[1]
    return net.append(nn.Conv2d(channels, 4, 3, padding=1)).eval()


# Where a weight is exactly zero NaN still gets through; a gradient does not.
ZERO_WEIGHTS = {"bilinear", "bicubic down", "antialiased"}
# What autograd is not told of, refuses, or computes with errors that happen to cancel.
NO_GRADIENT = {"data", "in place through a view", "max, dilated", "fourier"}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name):
    net = around(OPERATORS[name])
    if name not in ZERO_WEIGHTS:
        agree_with_nan(net, (23, 29), ["0", "1", "2"], batch=1 if name == "weights from the picture" else 8)
    if name not in NO_GRADIENT:
        agree_with_gradient(net, (23, 29), ["1", "2"])


@pytest.mark.parametrize("name", OPERATORS)
def test_the_whole_field_holds_what_is_seen(name):
    for field in fields_of(around(OPERATORS[name]), (23, 29), ["1", "2"], "local").values():
        for group in field.groups:
            for y, x in np.ndindex(*field.grid):
                seen, whole = group.seen(Position(y, x)), group.whole(Position(y, x))
                assert not seen.area or whole.contains(seen)


def test_far_from_the_border_the_whole_field_is_what_is_seen():
    from torchvision import models

    field = fields_of(models.resnet18(), (160, 192), ["layer2"])["layer2"]
    inside = Box(16, 16, 192 - 16, 160 - 16)
    places = [Position(y, x) for y, x in np.ndindex(*field.grid)]
    places = [place for place in places if inside.contains(field.groups[0].whole(place))]
    assert len(places) > 10
    for place in places:
        assert field.groups[0].whole(place) == field.groups[0].seen(place)
        assert field.visible(0, place) == 1.0


def test_regular_forms():
    """Worked by hand: r' = r + (k_e - 1) * j, j' = j * s, and the offset moves by the padding times j."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=2, dilation=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(4, 4, (5, 1), stride=(1, 2)),
        nn.Upsample(scale_factor=2),
    )
    fields = fields_of(net, (40, 40), ["0", "1", "2", "3"])
    assert form(fields["0"]) == ((5, 5), (1, 1), (-2, -2))
    assert form(fields["1"]) == ((7, 7), (2, 2), (-2, -2))
    assert form(fields["2"]) == ((15, 7), (2, 4), (-2, -2))
    assert form(fields["3"]) == (None, None, None)
    assert fields["3"].groups[0].rows[:3].tolist() == [[0, 13], [0, 13], [0, 15]]


def test_a_grid_of_one_cell_keeps_its_form():
    from torchvision import models

    assert form(fields_of(models.resnet18(), (32, 32), ["layer4"])["layer4"]) == ((435,) * 2, (32,) * 2, (-217,) * 2)
    halved = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), Apply(lambda x: x[..., ::2, ::2]), nn.Conv2d(4, 4, 3, padding=1)
    )
    assert form(fields_of(halved, (4, 4), ["2"])["2"]) == ((11, 11), (4, 4), (-5, -5))
    doubled = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1))
    assert form(fields_of(doubled, (2, 2), ["1"])["1"]) == (None, None, None)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())

    def forward(self, x):
        return F.max_pool2d(x, 3, 1, 1) * self.gate(x)


def test_the_gate_alone_is_dropped_from_the_local_field():
    net = around(Gated())
    local = fields_of(net, (40, 40), ["1", "2", "1.gate"], "local")
    assert form(local["1"]) == ((7, 7), (2, 2), (-3, -3))
    assert (local["1"].local, local["1.gate"].local) == (True, False)
    assert local["1.gate"].groups[0].rows.tolist() == [[0, 40]]
    assert local["1.gate"].status == "whole_input"
    agree_with_nan(net, (40, 40), ["1", "2"], "local")


@pytest.mark.parametrize("name", ["attention", "attention by hand", "group norm", "global response", "gate of rows"])
def test_the_local_field_is_that_of_the_place_itself(name):
    net = around(OPERATORS[name])
    local = fields_of(net, (40, 40), ["0", "1"], "local")
    assert local["1"].status == "whole_input"
    assert form(local["1"]) == form(local["0"])


def test_of_a_layer_called_twice_the_last_call_counts():
    shared = nn.Conv2d(3, 3, 3, padding=1)
    net = nn.Sequential(shared, nn.MaxPool2d(2), shared).eval()
    field = receptive_fields(net, (16, 16), ["0"])["0"]
    assert (field.grid, form(field)) == ((8, 8), ((8, 8), (2, 2), (-3, -3)))
    measured = nan_fields(net, (16, 16), layouts_of(net, (16, 16), ["0"]))["0"]
    np.testing.assert_array_equal(intervals(field, "rows"), measured[0])


def test_a_layer_is_read_before_it_is_overwritten():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Apply(lambda x: x.add_(F.max_pool2d(x, 5, 1, 2)))).eval()
    fields = receptive_fields(net, (16, 16), ["0", "1"])
    assert [fields[layer].groups[0].size for layer in ("0", "1")] == [(3, 3), (7, 7)]


def test_json_keeps_everything():
    net = around(OPERATORS["gate"])
    for field in fields_of(net, (23, 29), ["0", "1", "2"], "local").values():
        data = field.as_dict()
        assert ReceptiveField.from_dict(data, (23, 29)).as_dict() == data
        assert data["local"] == (field.layer != "0")


# What cannot be answered ----------------------------------------------------------------------------------


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = self.before(x)
        return self.after(x) if x.mean() > 0 else self.after(x * 2)


def test_what_depends_on_the_picture_is_refused_and_what_comes_before_is_not():
    net = Decides().eval()
    assert form(receptive_fields(net, (16, 16), ["before"])["before"])[0] == (3, 3)
    with pytest.raises(FieldError, match=r"layer 'after'.*reads a value"):
        receptive_fields(net, (16, 16), ["before", "after"])


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: torch.linalg.qr(x[..., :5, :5])[0], "linalg_qr"),
        (lambda x: x[:, x[0, :, 0, 0].argsort()], "depends on the input"),
        (lambda x: F.grid_sample(x, torch.zeros(1, 5, 5, 2), align_corners=False), "grid_sampler"),
        (lambda x: x.float().view(torch.int32).float(), "data type of the elements"),
        (lambda x: torch.tensor(x.tolist()) + x, "reads a value .Tensor.tolist"),
        (lambda x: x + float(x.max()), "reads a value .aten._local_scalar_dense"),
        (lambda x: torch.zeros(1, 8, 4, 4), "does not depend on the input"),
        (lambda x: x.unflatten(0, (1, 1)), "neither feature maps, tokens nor a vector"),
        (lambda x: x.expand(2, -1, -1, -1), "not one grid"),
        (lambda x: torch.stack([x.roll(i, 2)[..., 0] for i in range(5)], -1), "not a product of rows and columns"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(function, says):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Apply(function)).eval()
    with pytest.raises(ModelError, match=rf"'1'.*{says}") as caught:
        receptive_fields(net, (40, 61), ["1"])
    assert "\n" not in str(caught.value)


def test_networks_that_cannot_be_asked():
    net = nn.Sequential(nn.Conv2d(3, 8, 7), nn.MaxPool2d(3)).eval()
    with pytest.raises(FieldError, match=r"input of 8x8 in layer '1': .*[Tt]oo small"):
        receptive_fields(net, (8, 8), ["0"])
    with pytest.raises(ModelError, match="unknown layer '2'"):
        receptive_fields(net, (32, 32), ["2"])
    net.spare = nn.Identity().eval()
    net.forward = lambda x: net[0](x)
    with pytest.raises(ModelError, match="'spare' is never called"):
        receptive_fields(net, (32, 32), ["spare"])
    with pytest.raises(FieldError, match="training mode"):
        receptive_fields(net.train(), (32, 32), ["0"])


def test_the_network_is_left_as_it_was():
    net = around(OPERATORS["gate"])
    state = {name: value.clone() for name, value in net.state_dict().items()}
    receptive_fields(net, (23, 29), ["1"])
    with pytest.raises(FieldError):
        receptive_fields(net, (1, 0), ["1"])
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_field_that_is_one_pixel_off_is_noticed():
    net = around(OPERATORS["dilated"])
    measured = nan_fields(net, (23, 29), layouts_of(net, (23, 29), ["2"]))["2"]
    wrong = intervals(fields_of(around(nn.Conv2d(8, 8, 3, padding=1)), (23, 29), ["2"])["2"], "rows")
    assert (wrong != measured[0]).any()


# How outputs are read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "size", "order", "grid", "prefix"),
    [
        ((1, 7, 7, 768), (224, 224), "nhwc", (7, 7), 0),
        ((1, 768, 7, 7), (224, 224), "nchw", (7, 7), 0),
        ((1, 24, 33, 96), (97, 131), "nhwc", (24, 33), 0),
        ((1, 56, 56, 48), (224, 224), "nhwc", (56, 56), 0),
        ((1, 64, 64, 96), (256, 256), "nhwc", (64, 64), 0),
        ((1, 56, 56, 1), (224, 224), "nchw", (56, 1), 0),
        ((1, 96, 25, 33), (97, 131), "nchw", (25, 33), 0),
        ((1, 197, 192), (224, 224), "tokens", (14, 14), 1),
        ((1, 261, 384), (256, 256), "tokens", (16, 16), 5),
        ((1, 253, 192), (224, 288), "tokens", (14, 18), 1),
        ((1, 1000), (224, 224), "vector", (1, 1), 0),
    ],
)
def test_layouts(shape, size, order, grid, prefix):
    layout = layout_of("x", nn.GELU(), torch.zeros(shape), size)
    assert (layout.order, layout.grid, layout.prefix) == (order, grid, prefix)
    assert layout.grid_of(torch.zeros(shape)).shape[2:] == grid


def test_linear_layers_have_channels_last_whatever_the_shape():
    assert layout_of("x", nn.Linear(7, 7), torch.zeros(1, 7, 7, 7), (224, 224)).order == "nhwc"


def test_tokens_without_a_grid_are_refused():
    with pytest.raises(ModelError, match="'x' has shape"):
        layout_of("x", nn.Identity(), torch.zeros(1, 99, 512), (224, 224))

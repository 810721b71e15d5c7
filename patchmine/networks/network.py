"""A network: a torch module in eval mode with the facts that belong to its weights. Importing this loads no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchmine.errors import ModelError, nearest
from patchmine.photographs.placement import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A torch module in eval mode, with the facts that belong to its weights.

    `name` is the value of `--model`. `weights` is a digest of every parameter and buffer. `class_names`, if known,
    are in the order of the outputs. `stages` are the default layers if the kind of model knows them; otherwise
    `patchmine.networks.layers` finds them. `code` is a digest of the user's own code that made the module; None for a
    network that a name alone identifies.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    weights: str
    class_names: tuple[str, ...] | None = None
    stages: tuple[str, ...] | None = None
    code: str | None = None

    def layer(self, name: str) -> nn.Module:
        """The submodule of that dotted name. Raises ModelError for an unknown one."""
        modules = dict(self.module.named_modules())
        if name not in modules or not name:
            raise ModelError(f"{self.name} has no layer {name!r}{nearest(name, filter(None, modules))}")
        return modules[name]

    def blank(self) -> Tensor:
        """A mid-gray input of one image: float32 (1, 3, height, width)."""
        import torch

        return torch.zeros(1, 3, *self.preprocessing.crop)


def weights_digest(module: nn.Module) -> str:
    """A digest of the names, shapes, dtypes and bytes of the state dict."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

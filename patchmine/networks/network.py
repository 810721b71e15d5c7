"""A network: a torch module in eval mode with the facts that belong to its weights. Importing this loads no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchmine.errors import ModelError, nearest
from patchmine.networks.calls import module_and_call
from patchmine.photographs.placement import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A torch module in eval mode, with the facts that belong to its weights.

    `name` is the value of `--model`. `weights` is a digest of every parameter and buffer. `class_names`, if known,
    are in the order of the outputs. `stages` are the default layers if the kind of model knows them; otherwise
    `patchmine.networks.layers` finds them. `code` is a digest of the user's own code that made the module; None for a
    network that a name alone identifies. `lacking` are the tensors that the user's weights do not hold, such as a
    head's: they are NaN. `position_embedding` says how a transformer's was resampled for the input's size, if it was.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    weights: str
    class_names: tuple[str, ...] | None = None
    stages: tuple[str, ...] | None = None
    code: str | None = None
    lacking: tuple[str, ...] = ()
    position_embedding: str | None = None

    def layer(self, name: str) -> nn.Module:
        """The submodule of that layer. Raises ModelError for an unknown one."""
        modules = dict(self.module.named_modules())
        part, _ = module_and_call(name, modules)
        if part not in modules or not name:
            raise ModelError(f"{self.name} has no layer {name!r}{nearest(name, filter(None, modules))}")
        return modules[part]

    def blank(self) -> Tensor:
        """A mid-gray input of one image: float32 (1, 3, height, width)."""
        import torch

        return torch.zeros(1, 3, *self.preprocessing.crop)


def weights_digest(module: nn.Module) -> str:
    """A digest of the names, shapes, dtypes and bytes of the tensors of the state dict."""
    import torch
    from torch import Tensor

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor):  # `get_extra_state` may return anything
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        dense = tensor.detach().cpu() if tensor.layout is torch.strided else tensor.detach().cpu().to_dense()
        digest.update(dense.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

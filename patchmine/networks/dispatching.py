"""The base of our dispatch modes."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Dispatching(TorchDispatchMode):
    """A dispatch mode that is never compiled.

    torch hides the `__torch_dispatch__` of other modes from its compiler, and imports the whole compiler for that.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

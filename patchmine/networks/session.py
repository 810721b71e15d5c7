"""torch and numpy with their own defaults, whatever the session that calls patchmine has set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def own_settings() -> Iterator[None]:
    """Inside the block torch computes in float32 on the CPU with gradients, and numpy raises no floating-point error.

    Afterwards all is as it was, the state of torch's random numbers too.
    """
    import torch  # not at the top, so that wrong words are refused before torch is loaded

    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # the context costs time at each call of torch
            stack.enter_context(torch.device("cpu"))
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        yield


def with_own_settings(function: F) -> F:
    """The function under `own_settings`; a generator while it works, not while its caller does."""
    if not inspect.isgeneratorfunction(function):

        @wraps(function)
        def called(*words: Any, **options: Any) -> Any:
            with own_settings():
                return function(*words, **options)

        return cast(F, called)

    @wraps(function)
    def stepped(*words: Any, **options: Any) -> Iterator[Any]:
        steps = function(*words, **options)
        try:
            while True:
                with own_settings():
                    try:
                        found = next(steps)
                    except StopIteration:
                        return
                yield found
        finally:
            steps.close()

    return cast(F, stepped)

"""Turns what a user's function returns into a network that patchmine can look into, or says what to return instead."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from patchmine.errors import ModelError


def plain(built: object, spec: str) -> nn.Module:
    """The network that `spec` built, in eval mode, in float32 on the CPU, without gradients and wrappers.

    It is changed in place. Raises ModelError for one whose layers cannot be seen, and for one whose forward does not
    take one batch of photographs.
    """
    if not isinstance(built, nn.Module):
        raise ModelError(f"{spec} must return a torch module or a tuple (module, Preprocessing), {_instead(built)}")
    module = _bare(built)
    parts: dict[str, nn.Module] = {}
    _unwrap(module, "", parts, (), spec)
    for name, part in parts.items():
        fault = _fault(part)
        if fault:
            raise ModelError(f"{f'{name} of the module from {spec}' if name else spec} is {fault}")
    _check_inputs(module, spec)
    module.eval()  # its return value is the user's: an override of `train` may return nothing, or leave parts out
    for part in parts.values():
        part.training = False
        part._backward_hooks.clear()  # they would change the gradients of fields and synthetic images
        part._backward_pre_hooks.clear()
    to_float32 = any(p.is_floating_point() and p.dtype != torch.float32 for p in module.parameters())
    simple: dict[int, Tensor] = {}
    for part in parts.values():
        stores: tuple[dict[str, Any], ...] = (part._parameters, part._buffers, vars(part))
        for stored in stores:
            for name, tensor in stored.items():
                if isinstance(tensor, Tensor) and not is_lazy(tensor):
                    if id(tensor) not in simple:  # a tensor of several modules stays one
                        simple[id(tensor)] = _simple(tensor, to_float32)
                    stored[name] = simple[id(tensor)]
    return module


def initialize(module: nn.Module, blank: Tensor) -> None:
    """Initialize lazy modules by a pass of `blank`, float32 (1, 3, height, width), with seed 0."""
    if any(map(is_lazy, module.parameters())):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            module(blank)
        module.requires_grad_(False)


def _instead(built: object) -> str:
    if isinstance(built, torch.export.ExportedProgram):
        return "not an ExportedProgram, which has no modules to look into: return the module that was exported"
    if isinstance(built, dict) and built and all(isinstance(value, Tensor) for value in built.values()):
        return "not a state dict: return the network, and give the state dict with --weights FILE"
    if isinstance(built, type):
        return f"not the class {built.__name__}: return {built.__name__}()"
    return "not None" if built is None else f"not a {type(built).__name__}"


def _bare(module: nn.Module) -> nn.Module:
    """The module inside data parallelism and torch.compile, which runs as it is written."""
    while isinstance(module, DataParallel | DistributedDataParallel) or "_orig_mod" in module._modules:
        inner = module._modules.get("_orig_mod", module._modules.get("module"))
        assert inner is not None
        module = inner
    if isinstance(module, torch.jit.ScriptModule):
        return module
    module._compiled_call_impl = None  # of `module.compile()`
    written = getattr(module.forward, "_torchdynamo_orig_callable", None)  # of `@torch.compile`
    if written is not None:
        module.forward = written.__get__(module) if inspect.isfunction(written) else written
    return module


def _unwrap(
    module: nn.Module, name: str, parts: dict[str, nn.Module], around: tuple[nn.Module, ...], spec: str
) -> None:
    """Unwrap the parts of a module in place, and collect it and them by name, each once."""
    if any(module is outer for outer in around):
        raise ModelError(f"{spec} returns a module that is {name} of itself: keep that reference in a list")
    if any(module is part for part in parts.values()):
        return
    parts[name] = module
    if isinstance(module, torch.jit.ScriptModule):
        return
    for key, child in module._modules.items():
        if child is not None:
            module._modules[key] = child = _bare(child)
            _unwrap(child, f"{name}.{key}" if name else key, parts, (*around, module), spec)


def _fault(part: nn.Module) -> str | None:
    """Why a part of a network cannot be used, as the end of a sentence; None if it can."""
    where = type(part).__module__
    if isinstance(part, torch.jit.ScriptModule):
        return "a TorchScript module, whose layers cannot be seen: return the module that torch.jit compiled"
    if where.startswith(("torch.ao.", "torch.nn.quantized")) and not _computes_in_float(part):
        return "quantized, and patchmine computes in float32: return the network as it was before quantization"
    if "FullyShardedDataParallel" in type(part).__name__:
        return "sharded: return the network that FullyShardedDataParallel wraps, with its full state dict"
    if where.startswith("torch.export.") or (where.startswith("torch.fx.") and hasattr(part, "range_constraints")):
        return "an exported program, which has no modules to look into: return the module that was exported"
    for tensor in (*part._parameters.values(), *part._buffers.values()):
        if tensor is None:
            continue
        if tensor.is_meta:
            return "on the meta device, so it has no weights: build it without torch.device('meta')"
        if is_traceable_wrapper_subclass(tensor) or tensor.is_quantized:
            kind = type(tensor).__name__
            return f"made of tensors of another kind ({kind}): return it with plain torch tensors as weights"
    return None


def _computes_in_float(part: nn.Module) -> bool:
    from torch.ao.nn.quantized import FloatFunctional
    from torch.ao.quantization import DeQuantStub, QuantStub

    return type(part) in (FloatFunctional, QuantStub, DeQuantStub) or "quant" not in type(part).__module__


def _check_inputs(module: nn.Module, spec: str) -> None:
    """Raise ModelError if the forward of the network needs anything but one batch."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict) or type(module).forward is nn.Module.forward:
        raise ModelError(
            f"{spec} returns a {type(module).__name__}, which has no forward: return a module that has one"
        )
    parameters = list(inspect.signature(module.forward).parameters.values())
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [one.name for one in parameters if one.default is one.empty and one.kind not in variable]
    takes = any(one.kind not in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD) for one in parameters)
    if len(needed) > 1 or not takes:
        raise ModelError(
            f"{spec} returns a module whose forward takes {' and '.join(needed) or 'nothing'}, but patchmine gives it "
            "one batch of photographs: return a module whose forward takes that alone"
        )


def _simple(tensor: Tensor, to_float32: bool) -> Tensor:
    """The tensor, or a copy if it is not on the CPU, not in float32, or has a gradient or inference mode."""
    dtype = torch.float32 if to_float32 and tensor.is_floating_point() else tensor.dtype
    if tensor.is_leaf and not tensor.is_inference() and tensor.device.type == "cpu" and tensor.dtype == dtype:
        return tensor.requires_grad_(False)
    copied = tensor.detach().clone().to("cpu", dtype)
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied


__all__ = ["initialize", "plain"]

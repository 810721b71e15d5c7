"""Computes batches with OpenVINO on the CPU. It compiles the network as one graph and is much faster than torch."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as installed
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchmine.errors import RequestError
from patchmine.executors import Bound, Executor, Reduced, Setting
from patchmine.executors._openvino_graphs import cached
from patchmine.executors._reduce import cells, reduce
from patchmine.networks.folding import replica
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap, at_call, tapped
from patchmine.photographs.decode import normalized
from patchmine.ranking import Float32, Int64

# OpenVINO tells its maker of every import and conversion, from a process of its own. Without this package it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

HELP = "openvino: OpenVINO on the CPU, with the extra patchmine[openvino]"
RANK = 0
READY = False

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


def missing() -> str | None:
    if importlib.util.find_spec("openvino") is None:
        return "install it with pip install 'patchmine[openvino]', or leave --executor out"
    return None


def version() -> str:
    return f"openvino {installed('openvino')}, torch {torch.__version__}"


def default_device() -> str:
    return "cpu"


def fits(network: Network, device: str, precision: str) -> bool:
    """Only the CPU, only inputs of one size, and only precisions that this CPU supports."""
    if device != "cpu" or network.preprocessing.view == "whole":
        return False
    return precision == "fp32" or precision in precisions()


def settings(device: str, workers: int) -> list[tuple[int, int]]:  # noqa: ARG001
    return [(8, 1), (16, 1)]


def precisions() -> list[str]:
    """The precisions that this CPU supports. OpenVINO must be installed."""
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name, word in _CAPABILITIES.items() if word in able]


def build(network: Network, taps: tuple[Tap, ...], setting: Setting, lanes: int) -> Executor:
    import openvino

    if setting.device != "cpu":
        raise RequestError(f"--executor openvino computes on the CPU, not on {setting.device!r}: leave one of them out")
    if network.preprocessing.view == "whole":
        raise RequestError("--executor openvino needs inputs of one size, not --view whole: use --executor torch")
    if setting.precision not in (known := precisions()):
        raise RequestError(f"OpenVINO does not support {setting.precision} on this CPU: choose from {', '.join(known)}")
    graph = _converted(network, taps).clone()
    try:
        graph.reshape([setting.batch_size, 3, *network.preprocessing.crop])  # a fixed size computes faster
    except RuntimeError:
        raise RequestError(
            f"OpenVINO cannot run {network.name} in batches of {setting.batch_size}, perhaps as its code has len(x) "
            "where x.shape[0] could stand: use --executor torch"
        ) from None
    compiled = openvino.Core().compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _HINTS[setting.precision],
            "INFERENCE_NUM_THREADS": lanes * setting.threads,
            "NUM_STREAMS": lanes,
        },
    )
    # One more request than batches at once: it waits in OpenVINO's own queue, so that a stream finds its next batch
    # there while the thread that brought the last one holds, or waits for, the interpreter's lock.
    requests = [compiled.create_infer_request() for _ in range(lanes + 1)]
    executor = OpenVinoExecutor(network, taps, setting.batch_size, requests)
    # OpenVINO's Python binding initializes itself at the first pass. If two threads are the first, they deadlock: one
    # waits for the other's initialization while it holds the interpreter's lock.
    none = np.zeros(0, np.int64)
    executor.values(torch.zeros(setting.batch_size, 3, *network.preprocessing.crop), none, none)
    return executor


def _converted(network: Network, taps: tuple[Tap, ...]) -> Any:
    """The tapped network as a graph for batches of any size; the last one is cached for calibration."""
    key = (network.weights, network.preprocessing.crop, tuple(tap.layer for tap in taps))
    if key not in _graphs:
        _graphs.clear()
        _graphs[key] = cached(network, taps, lambda: _convert(network, taps))
    return _graphs[key]


_graphs: dict[tuple[Any, ...], Any] = {}


def _convert(network: Network, taps: tuple[Tap, ...]) -> Any:
    import openvino

    example = torch.zeros(2, 3, *network.preprocessing.crop)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns about every shape that the network reads
        try:
            traced = torch.jit.trace(_Tapped(replica(network.module), taps).eval(), example, check_trace=False)
            return openvino.convert_model(traced, example_input=example, input=[-1, *example.shape[1:]])
        except Exception as error:  # noqa: BLE001 - the tracer and the converter raise errors of many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RequestError(f"OpenVINO cannot convert {network.name} ({reason}): use --executor torch") from None


class _Tapped(nn.Module):
    """Runs the network and returns the tapped outputs, in the order of the taps."""

    def __init__(self, module: nn.Module, taps: tuple[Tap, ...]) -> None:
        super().__init__()
        self.module, self.taps = module, taps

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        outputs: dict[str, Tensor] = {}

        def keep(tap: Tap) -> Any:
            # A clone, because the next layer may overwrite the output in place; a grid, so that 2d outputs fit too.
            return at_call(tap, lambda output: outputs.__setitem__(tap.layer, tap.layout.vectors_of(output).clone()))

        with tapped(self.module, {tap.layer: keep(tap) for tap in self.taps}):
            self.module(batch)
        return tuple(outputs[tap.layer] for tap in self.taps)


class OpenVinoExecutor:
    """One compiled graph, with its inference requests. A partial batch is padded with zeros."""

    def __init__(self, network: Network, taps: tuple[Tap, ...], batch_size: int, requests: list[Any]) -> None:
        self.taps, self.batch_size = taps, batch_size
        self.device = torch.device("cpu")
        self.preprocessing = network.preprocessing
        self.requests: SimpleQueue[Any] = SimpleQueue()
        for request in requests:
            self.requests.put(request)

    def run(self, pixels: Tensor, images: Int64, bounds: Mapping[str, Bound]) -> dict[str, Reduced]:
        count = len(pixels)
        batch = normalized(pixels, self.preprocessing)
        if count < self.batch_size:
            batch = torch.cat([batch, batch.new_zeros(self.batch_size - count, *batch.shape[1:])])
        with self._outputs(batch) as outputs:
            return {
                tap.layer: reduce(
                    torch.from_numpy(outputs[number])[:count], images, bounds[tap.layer], tap.layout.readout
                )
                for number, tap in enumerate(self.taps)
            }

    def values(self, inputs: Tensor, channels: Int64, places: Int64) -> Float32:
        with self._outputs(inputs) as outputs:
            return cells(self.taps[-1], torch.from_numpy(outputs[-1]), channels, places)

    @contextmanager
    def _outputs(self, batch: Tensor) -> Iterator[list[NDArray[np.float32]]]:
        """The outputs of a full batch, by number; valid inside the block."""
        from openvino import Tensor as Shared

        pixels = np.ascontiguousarray(batch.numpy())
        request = self.requests.get()
        try:
            # What `infer` does for inputs of any kind takes longer than the rest of the call.
            request.set_input_tensor(Shared(pixels, shared_memory=True))
            request.start_async()
            request.wait()
            yield [request.get_output_tensor(number).data for number in range(len(self.taps))]
        finally:
            self.requests.put(request)

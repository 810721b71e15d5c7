"""The collection of top images per channel by other tools, each as its own documentation runs it, timed.

    python -m scripts.bench.peers PHOTOGRAPHS --peer semanticlens [--images 400]

Prints photographs a second, from the tool's first constructor to its results on the disk; importing it and loading
the network are not counted. Every tool gets patchmine's network, layers and pixels, and as a torch dataset, so that
nobody's decoder is compared. `index.py --compare` runs this once a round, each tool in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from patchmine import models
from patchmine.networks.layers import choose
from patchmine.networks.network import Network
from patchmine.photographs.decode import normalized, prepare
from patchmine.sources import open_source
from scripts.bench.measuring import command_line, seconds_of

BATCH_SIZE = 32
"""The default of both tools, and of their tutorials."""

SAMPLES = 20
"""Of each channel, as in the quickstart of semanticlens, which has no default; zennit-crp always keeps 40."""


class Photographs(Dataset[tuple[Tensor, int]]):
    """What the network takes, and a label. One label for all: zennit-crp keeps a ranking for each that it meets."""

    name = "photographs"  # semanticlens names a folder by it

    def __init__(self, folder: Path, images: int, network: Network) -> None:
        self.source = open_source(str(folder))
        self.paths = [entry.path for entry in self.source.entries()[:images]]
        self.preprocessing = network.preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        pixels = prepare(self.source.read(self.paths[number]), self.preprocessing)
        return normalized(pixels.tensor[None], self.preprocessing)[0], 0


Collect = Callable[[nn.Module, Photographs, tuple[str, ...], Path], None]


def zennit_crp(module: nn.Module, photographs: Photographs, layers: tuple[str, ...], directory: Path) -> None:
    """`FeatureVisualization.run`, ranking by the maximum. Its pass backward has no switch."""
    from crp.attribution import CondAttribution

    _run_crp(CondAttribution(module), photographs, layers, directory)


def zennit_crp_forward(module: nn.Module, photographs: Photographs, layers: tuple[str, ...], directory: Path) -> None:
    """The same without relevance: with an attribution that runs the network and stops there."""
    from crp.attribution import CondAttribution

    class Forward(CondAttribution):
        def __call__(self, data: Tensor, *_conditions: object, **_options: object) -> None:
            with torch.inference_mode():
                self.model(data)

    _run_crp(Forward(module), photographs, layers, directory)


def _run_crp(attribution: object, photographs: Photographs, layers: tuple[str, ...], directory: Path) -> None:
    from crp.concepts import ChannelConcept
    from crp.visualization import FeatureVisualization

    concepts = {layer: ChannelConcept() for layer in layers}
    finder = FeatureVisualization(
        attribution, photographs, concepts, max_target="max", abs_norm=False, path=str(directory)
    )
    batch_size = BATCH_SIZE
    while len(photographs) % batch_size == 1:  # it raises TypeError at a batch of one
        batch_size += 1
    # Without a composite: the plain gradient, which costs less than any rule of relevance.
    finder.run(None, 0, len(photographs), batch_size=batch_size)


def semanticlens(module: nn.Module, photographs: Photographs, layers: tuple[str, ...], directory: Path) -> None:
    """`ActivationComponentVisualizer.run`, ranking by the maximum."""
    from semanticlens.component_visualization import ActivationComponentVisualizer, aggregators

    module.name = "network"  # type: ignore[assignment]  # names a folder
    finder = ActivationComponentVisualizer(
        module,
        photographs,
        photographs,
        layer_names=list(layers),
        num_samples=SAMPLES,
        aggregate_fn=aggregators.aggregate_conv_max,
        cache_dir=str(directory),
    )
    # Without processes that decode, its default: on two cores two of them made it no faster.
    finder.run(batch_size=BATCH_SIZE)


@dataclass(frozen=True)
class Peer:
    """A tool in one way of running it. `package` is what pip calls it, `imported` what Python does."""

    package: str
    imported: str
    how: str
    collect: Collect

    def missing(self) -> str | None:
        """What to type to install it, or None where it is installed."""
        return None if find_spec(self.imported) else f"pip install {self.package}"

    def described(self) -> str:
        return f"{self.package} {version(self.package)}, {self.how}; batches of {BATCH_SIZE}"


PEERS = {
    "zennit-crp": Peer("zennit-crp", "crp", "forward and backward, without a composite; keeps 40", zennit_crp),
    "zennit-crp forward": Peer(
        "zennit-crp", "crp", "its pass backward replaced by nothing; keeps 40", zennit_crp_forward
    ),
    "semanticlens": Peer("semanticlens", "semanticlens", f"forward; keeps {SAMPLES}", semanticlens),
}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--peer", choices=list(PEERS), required=True)
    options = parser.parse_args()
    peer = PEERS[options.peer]
    if command := peer.missing():
        parser.error(f"{options.peer} is not installed: {command}")
    import_module(peer.imported)  # what takes seconds, before the clock starts
    network = models.load()
    layers = choose(network, ())
    photographs = Photographs(options.folder, options.images, network)
    with TemporaryDirectory() as directory:
        taken = seconds_of(lambda: peer.collect(network.module, photographs, layers, Path(directory)))
        print(len(photographs) / taken)


if __name__ == "__main__":
    main()

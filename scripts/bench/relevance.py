"""What relevance costs: the time of its pass as a multiple of the pass for activations, on the same photographs.

    python -m scripts.bench.relevance [--model M]... [--rounds N]

Both passes run in one thread on the same batch in turns, with the executor `torch`; on a CPU, its seconds count. So the
multiple holds on a loaded machine too. With `--relevance` an index costs 1 plus this multiple.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter, process_time

import numpy as np
import torch

from patchmine import executors, models
from patchmine.defaults import MODEL
from patchmine.executors import Setting
from patchmine.networks.layers import choose, indexable
from patchmine.networks.taps import survey
from patchmine.relevance.building import BATCH
from patchmine.relevance.propagation import Propagator
from patchmine.system import allocator

MODELS = (MODEL, "torchvision:resnet18@random", "torchvision:vgg11_bn@random", "timm:vit_tiny_patch16_224@random")


def multiples(model: str, batch: int, rounds: int, rule: str, device: str) -> tuple[float, float]:
    """Seconds of the activations of a batch, and of its relevance as a multiple: medians over the rounds."""
    network = models.load(model)
    taps = survey(network.module, network.blank(), indexable(choose(network, ())))
    setting = Setting(device=device, precision="fp32", batch_size=batch, threads=1)
    executor = executors.build("torch", network, taps, setting, 1)
    propagator = Propagator(network, taps, rule, torch.device(device))
    noise = torch.rand(batch, 3, *network.preprocessing.crop, generator=torch.Generator().manual_seed(0))
    pixels, images = (noise * 255).to(torch.uint8), np.arange(batch)
    bounds = {
        tap.layer: (np.full(tap.layout.channels, np.inf, np.float32), np.zeros(tap.layout.channels, np.int64))
        for tap in taps
    }
    now = process_time if device == "cpu" else perf_counter  # CPU seconds hold on a loaded machine
    seconds: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        begin = now()
        executor.run(pixels, images, bounds)
        between = now()
        propagator.run(pixels)
        seconds.append((between - begin, now() - between))
    return median(one for one, _ in seconds[1:]), median(two / one for one, two in seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", metavar="M")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--device", default=executors.kind("torch").default_device())
    words = parser.parse_args()
    torch.set_num_threads(1)
    allocator.keep_blocks()
    batch = BATCH.get(words.device, BATCH["cpu"])
    print(f"{'network':40} {'rule':10} {'images/s':>9} {'multiple':>9}")
    for model in words.model or MODELS:
        for rule in ("plus", "gradient"):
            seconds, multiple = multiples(model, batch, words.rounds, rule, words.device)
            print(f"{model:40} {rule:10} {batch / seconds:9.1f} {multiple:9.2f}")


if __name__ == "__main__":
    main()

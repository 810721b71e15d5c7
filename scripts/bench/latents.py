"""Index many latents: time, peak memory, size, and how long `top` takes.

    python -m scripts.bench.latents PHOTOGRAPHS [--latents 65536] [--limit N] [-o DIR]

The autoencoder is no trained one, but as sparse: its decoder rows are sums of activation vectors of `blocks.6` on the
first photographs, and each latent has the threshold that one vector in 2,000 exceeds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from safetensors.torch import save_file

import patchmine

LAYER = "blocks.6"
FIRST = 200
"""The photographs whose activation vectors make the autoencoder."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs")
    parser.add_argument("--latents", type=int, default=65_536)
    parser.add_argument("--limit", type=int)
    parser.add_argument("-o", "--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        patchmine.build_index(asked.photographs, folder / "first", layers=(LAYER,), limit=FIRST)
        make(patchmine.open_index(folder / "first"), asked.latents, folder)
        out = asked.out or folder / "latents.patchmine"
        layer = f"{LAYER}@sae"
        words = ["index", asked.photographs, "-o", str(out), "--layers", layer, "--directions", f"{layer}={folder}"]
        seconds = timed([*words, *(["--limit", str(asked.limit)] if asked.limit else [])])
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
        top = min(timed(["top", "-i", str(out), "--unit", f"{layer}:{unit}"]) for unit in (0, 777, asked.latents - 1))
        images = len(patchmine.open_index(out))
        print(f"{asked.latents} latents on {images} photographs: {seconds:.0f} s, peak {peak:.2f} GB, {size:.0f} MB")
        print(f"top: {top:.2f} s in a process of its own; load {os.getloadavg()[0]:.1f}")


def make(index: patchmine.Index, latents: int, folder: Path) -> None:
    """Write the autoencoder, in the form of SAELens."""
    vectors = torch.from_numpy(index.store.vectors(LAYER)[0][:].astype(np.float32))
    random = torch.Generator().manual_seed(0)
    one, other = (vectors[torch.randint(len(vectors), (latents,), generator=random)] for _ in range(2))
    weights = torch.rand(2, latents, 1, generator=random)
    rows = weights[0] * one + weights[1] * other
    noise = 0.1 * vectors.std(0) * torch.randn(rows.shape, generator=random)
    rows = torch.nn.functional.normalize(rows - rows.mean(0) + noise, dim=1)
    sample = vectors[torch.randperm(len(vectors), generator=random)[:2000]] - vectors.mean(0)
    highest = torch.cat([(sample @ part.T).amax(0) for part in rows.split(4096)])
    tensors = {"W_enc": rows.T.contiguous(), "b_enc": torch.zeros(latents), "W_dec": rows, "b_dec": vectors.mean(0)}
    save_file({**tensors, "threshold": (0.9 * highest).clamp(min=0.5)}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"architecture": "jumprelu", "apply_b_dec_to_input": True}))


def timed(words: list[str]) -> float:
    start = perf_counter()
    subprocess.run([sys.executable, "-m", "patchmine", *words], check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


if __name__ == "__main__":
    main()

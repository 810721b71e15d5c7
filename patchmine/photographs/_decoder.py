"""The processes of `decoders.Decoders`. One imports torch and forks the others, so that they share its memory.

    python -m patchmine.photographs._decoder MEMORY SOCKET...

are the descriptors of the shared memory and of one socket for each process. The standard input holds the pickled
source, preprocessing and shape of the memory: (slots, photographs, 3, height, width).
"""

from __future__ import annotations

import os
import pickle
import sys
from mmap import mmap
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from patchmine.photographs._torchvision import load_decoder
from patchmine.photographs.loading import Readable, load
from patchmine.photographs.placement import Placement, Preprocessing
from patchmine.system import allocator
from patchmine.system.timing import Stages

Answer = tuple[list[tuple[str, Placement | None, str | None]], dict[str, float]]
"""For each photograph its digest, placement and reason, as of `Loaded`; and the seconds of each stage."""


def main() -> None:
    descriptor, *sockets = map(int, sys.argv[1:])
    source, preprocessing, shape = pickle.load(sys.stdin.buffer)
    slots = torch.frombuffer(mmap(descriptor, 0), dtype=torch.uint8).view(shape)
    torch.set_num_threads(1)
    allocator.keep_blocks()
    load_decoder()
    for own in sockets:
        if os.fork() == 0:
            for other in set(sockets) - {own}:  # else nobody would notice that the other ended
                os.close(other)
            _answer(Connection(own), slots, source, preprocessing)
            os._exit(0)
    for socket in sockets:
        os.close(socket)
    for _ in sockets:
        os.wait()
    os._exit(0)  # sooner than an orderly end


def _answer(connection: Connection[Any, Any], slots: Tensor, source: Readable, preprocessing: Preprocessing) -> None:
    """Load what is asked for until the other end is closed."""
    connection.send(None)  # ready
    while True:
        try:
            slot, paths = connection.recv()
            connection.send(_loaded(slots[slot], source, paths, preprocessing))
        except (EOFError, OSError):
            return


def _loaded(slot: Tensor, source: Readable, paths: list[str], preprocessing: Preprocessing) -> Answer:
    stages, found = Stages(), []
    for row, path in enumerate(paths):
        loaded = load(source, path, preprocessing, stages.timed)
        if loaded.pixels is not None:
            slot[row].copy_(loaded.pixels.tensor)
        found.append((loaded.digest, loaded.pixels.placement if loaded.pixels else None, loaded.reason))
    return found, dict(stages.seconds)


if __name__ == "__main__":
    main()

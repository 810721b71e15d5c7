"""Reads and decodes photographs in processes of their own, which put the pixels into memory shared with this one.

Beside a GPU the cores have nothing else to do, and threads of one process cannot use them fully: they wait for each
other at Python's lock and at the kernel's for the memory of the process.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from math import prod
from mmap import mmap
from multiprocessing.connection import Connection
from queue import SimpleQueue
from socket import SHUT_RDWR, socket, socketpair
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any
from weakref import finalize

import torch
from torch import Tensor

from patchmine.photographs.decode import Pixels
from patchmine.photographs.loading import Loaded, Readable, load
from patchmine.photographs.placement import Preprocessing
from patchmine.system.timing import Stages

if TYPE_CHECKING:
    from patchmine.photographs._decoder import Answer

_END_S = 2.0  # a process that is asked to end first finishes its photographs


class Decoders:
    """Processes that load photographs, up to `block` of them at a time, for up to `lent` callers at once.

    `memory`, uint8 (lent, block, 3, height, width), is shared with them. `loaded` uses them.
    """

    def __init__(self, source: Readable, preprocessing: Preprocessing, processes: int, block: int, lent: int) -> None:
        """Begin to start them. Raises OSError, and what `pickle` raises for a source that cannot be pickled."""
        shape = (lent, block, 3, *preprocessing.crop)
        job = pickle.dumps((source, preprocessing, shape))
        memory = os.memfd_create("patchmine-pixels")
        try:
            os.ftruncate(memory, prod(shape))
            self.memory: Tensor = torch.frombuffer(mmap(memory, prod(shape)), dtype=torch.uint8).view(shape)
            self._crew = _Crew(memory, job, processes)
        finally:
            os.close(memory)
        self.lent = lent
        self._free: SimpleQueue[int] = SimpleQueue()
        for slot in range(lent):
            self._free.put(slot)
        self.close = finalize(self, self._crew.end)
        """Ends the processes; so does the end of this object."""

    def wait(self) -> None:
        """Wait until all have started."""
        self._crew.starting.join()

    @contextmanager
    def loaded(self, paths: Sequence[str], stages: Stages) -> Iterator[list[Loaded] | None]:
        """Photographs whose pixels lie beside each other in `memory` until the block ends; None while the processes
        start, and once all have died."""
        slot = self._free.get()
        try:
            answer = self._crew.ask((slot, list(paths)))
            if answer is None:
                yield None
                return
            found, seconds = answer
            for stage, spent in seconds.items():
                stages.add(stage, spent)
            yield [
                Loaded(digest, Pixels(tensor, placement) if placement else None, reason)
                for (digest, placement, reason), tensor in zip(found, self.memory[slot], strict=False)
            ]
        finally:
            self._free.put(slot)


class _Crew:
    """The processes, each at the other end of a socket."""

    def __init__(self, memory: int, job: bytes, processes: int) -> None:
        pairs = [socketpair() for _ in range(processes)]
        theirs = [other.detach() for _, other in pairs]
        try:
            # -P and a session of their own: no module of the working directory, and no Ctrl-C.
            self._first = subprocess.Popen(
                [sys.executable, "-P", "-m", "patchmine.photographs._decoder", *map(str, (memory, *theirs))],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
                pass_fds=(memory, *theirs),
                start_new_session=True,
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._all = [Connection(own.detach()) for own, _ in pairs]
        self._idle: list[Connection[Any, Any]] = []
        self._living, self._started = processes, False
        self._changed = Condition()
        self.starting = Thread(target=self._start, args=(job,), daemon=True, name="decoders")
        self.starting.start()

    def ask(self, question: tuple[int, list[str]]) -> Answer | None:
        """The answer of the next process that is free; None if none has started, or all have died."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or not self._living or not self._started)
            if not self._idle:
                return None
            one = self._idle.pop()
        try:
            one.send(question)
            answer: Answer = one.recv()
        except (EOFError, OSError):  # it was killed
            self._change(living=-1)
            return None
        self._change(idle=one)
        return answer

    def end(self) -> None:
        for one in self._all:
            with suppress(OSError), socket(fileno=os.dup(one.fileno())) as same:
                same.shutdown(SHUT_RDWR)  # wakes whoever waits for an answer, which closing would not
        with suppress(subprocess.TimeoutExpired):
            self._first.wait(_END_S)
        self.starting.join(_END_S)

    def _start(self, job: bytes) -> None:
        """Send the job to the first process, and wait until each says that it is ready."""
        assert self._first.stdin is not None
        with suppress(OSError), self._first.stdin as stdin:
            stdin.write(job)
        for one in self._all:
            try:
                one.recv()
            except (EOFError, OSError):
                self._change(living=-1)
            else:
                self._change(idle=one)

    def _change(self, idle: Connection[Any, Any] | None = None, living: int = 0) -> None:
        with self._changed:
            self._living += living
            if idle is not None:
                self._idle.append(idle)
                self._started = True
            self._changed.notify_all()


@contextmanager
def loaded(
    decoders: Decoders | None, source: Readable, paths: Sequence[str], preprocessing: Preprocessing, stages: Stages
) -> Iterator[list[Loaded]]:
    """Load up to a block of photographs, in one of the processes or else here. Their pixels may be used until the block
    of the `with` ends."""
    with decoders.loaded(paths, stages) if decoders and paths else nullcontext() as found:
        yield [load(source, path, preprocessing, stages.timed) for path in paths] if found is None else found


def suit(source: Readable, preprocessing: Preprocessing) -> bool:
    """Whether processes can load these photographs: all become inputs of one size, and are not fetched ahead."""
    here = sys.platform == "linux"  # a system with memory files and fork
    return here and preprocessing.view != "whole" and not hasattr(source, "expect")


__all__ = ["Decoders", "loaded", "suit"]

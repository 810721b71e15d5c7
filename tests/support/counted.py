"""A source that writes down which process mined each photograph, so that shards computed twice can be told."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import psutil

from tests.support.distribution import install

SOURCE = """
import os
import re
import threading
from dataclasses import dataclass

from patchmine.sources import Source, open_source

HELP = "counted:LOG:SOURCE (another source, whose readers are written down)"


@dataclass(frozen=True)
class Counted:
    spec: str
    name: str
    log: str
    source: Source
    kind: str = "counted"

    def entries(self):
        return self.source.entries()

    def read(self, path):
        if threading.current_thread().name.startswith("mine"):
            descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, f"{os.getpid()} {path}\\n".encode())
            os.close(descriptor)
        return self.source.read(path)


def claim(spec):
    found = re.fullmatch("counted:([^:]+):(.+)", spec)
    if found is None:
        return None
    source = open_source(found[2])
    return Counted(f"counted:{found[1]}:{source.spec}", source.name, found[1], source)
"""


class Counted:
    """The source over another one, and what its log tells. `site` must be on the path of each process that reads it."""

    def __init__(self, folder: Path, source: str, paths: list[str], shard_size: int) -> None:
        self.site = install(
            folder / "site", "counted", {"counted_source.py": SOURCE}, "[patchmine.sources]\ncounted = counted_source\n"
        )
        self.log = folder / "mined.log"
        self.spec = f"counted:{self.log}:{source}"
        self._shard = {path: number // shard_size for number, path in enumerate(paths)}
        self.shards = len(set(self._shard.values()))
        self.dead: set[int] = set()

    def miners(self) -> dict[int, set[int]]:
        """The processes that have mined photographs of each shard."""
        found: dict[int, set[int]] = defaultdict(set)
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            pid, _, path = line.partition(" ")
            found[self._shard[path]].add(int(pid))
        return found

    def bury(self) -> None:
        """Remember which processes have ended by now: a fault explains that others mine their shards again."""
        pids = {pid for miners in self.miners().values() for pid in miners}
        self.dead |= {pid for pid in pids if not psutil.pid_exists(pid)}

    def check(self) -> tuple[int, int]:
        """Every shard was mined by one process and by such that died; (shards, times that one was mined again)."""
        miners = self.miners()
        assert len(miners) == self.shards
        for shard, pids in miners.items():
            assert len(pids - self.dead) <= 1, f"shard {shard} was mined by {pids}, of which {self.dead} died"
        again = sum(len(pids) - 1 for pids in miners.values())
        self.log.unlink()
        self.dead.clear()
        return len(miners), again

"""A package with entry points, as pip leaves it in a folder on sys.path, and patchmine in a process that sees it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent


def install(folder: Path, name: str, files: Mapping[str, str], entry_points: str) -> Path:
    """Write a distribution: its files by their path in `folder`, and its `entry_points.txt`. Returns the folder."""
    about = f"{name.replace('-', '_')}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    for path, text in {**files, f"{about}/METADATA": metadata, f"{about}/entry_points.txt": entry_points}.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(dedent(text).lstrip(), "utf-8")
    return folder


def patchmine(site: Path, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """`patchmine ...` in `folder`, in a process that sees the packages in `site`."""
    return program(site, folder, "from patchmine.cli import main\nif __name__ == '__main__': main()", *words)


def program(site: Path, folder: Path, text: str, *words: object) -> subprocess.CompletedProcess[str]:
    """A program in `folder`, in a process that sees the packages in `site`; so do the processes that it spawns."""
    script = folder / "run.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(site)!r})\n{text}\n", "utf-8")
    command = [sys.executable, str(script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)

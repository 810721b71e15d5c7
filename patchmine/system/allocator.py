"""Tune glibc's memory allocator for long batch jobs. Every function does nothing on other systems."""

from __future__ import annotations

import ctypes
import sys

# from malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8

_ARENAS = 2
ENVIRONMENT = {"MALLOC_ARENA_MAX": str(_ARENAS)}
"""What `keep_flat` does, for the environment of a process that has threads before any code of ours runs in it."""

_NEVER = 2**31 - 1


def keep_flat() -> None:
    """Let all threads share two arenas: with one arena per decoding thread, memory fragments."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def keep_blocks() -> None:
    """Keep large blocks when they are freed, instead of returning each to the system and faulting it in again.

    A forward pass of torch on the CPU allocates and frees every feature map, so this makes it faster.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def give_back() -> None:
    """Return free memory to the system, between two phases that need large blocks."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None

"""What a process keeps of memory that it needed for a moment."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import pytest

from bridge.server import give_back_memory

MB = 1 << 20


def heap():
    """Bytes of this process that no file stands behind, and that are in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such option")
def test_what_is_free_in_the_middle_of_the_heap_is_given_back():
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [library.malloc(8_000) for _ in range(5_000)]
    for block in blocks:
        ctypes.memset(block, 1, 8_000)
    *rest, last = blocks  # which keeps the heap from shrinking by itself
    for block in rest:
        library.free(block)
    before = heap()
    give_back_memory()
    assert before - heap() > 30 * MB
    library.free(last)

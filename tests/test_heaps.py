# SPDX-License-Identifier: Apache-2.0
"""The threads of a node share few heaps of the C library."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from sparecode_node.daemon.memory import ARENAS

THREADS = """
import ctypes, sys, threading
from sparecode_node.daemon.memory import share_arenas

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
if sys.argv[2] == "shared":
    share_arenas()
together = threading.Barrier(12)

def allocate():
    together.wait()
    libc.malloc(ctypes.c_size_t(50_000))
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(12)]
for each in threads:
    each.start()
for each in threads:
    each.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt"
)
def test_threads_share_few_heaps(tmp_path: Path) -> None:
    heaps = {}
    for name in ("shared", "default"):
        subprocess.run(
            [sys.executable, "-c", THREADS, str(tmp_path / name), name], check=True
        )
        heaps[name] = (tmp_path / name).read_text().count("<heap nr=")
    assert heaps["shared"] <= ARENAS < heaps["default"]

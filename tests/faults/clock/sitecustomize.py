# SPDX-License-Identifier: Apache-2.0
"""
Sets the clock of a node: Python imports this first if its folder is on the path.

The node takes the time from `time.time_ns` and from nowhere else, and that is what
is shifted, by as many seconds as a file says at the moment. Not libfaketime: it
shifts what gRPC's core computes its deadlines from as well, but not the kernel that
waits for them, so that the core waits for minutes where a real jump would not.
"""

import mmap
import os
import time
from pathlib import Path

# Mapped, not read: the time is asked for several times in each tick and each call.
with Path(os.environ["SPARECODE_FAULTS_CLOCK"]).open("rb") as _file:
    _OFFSET = mmap.mmap(_file.fileno(), 0, access=mmap.ACCESS_READ)
_true_ns = time.time_ns


def _shifted_ns() -> int:
    return _true_ns() + int(_OFFSET[:]) * 1_000_000_000


time.time_ns = _shifted_ns

# SPDX-License-Identifier: Apache-2.0
"""
Lines that gRPC writes to standard error.

When a handshake fails, gRPC's C core reports the cause only as a line on file
descriptor 2. So the node redirects this descriptor into a pipe. Python's `sys.stderr`
and the log still go to the original standard error.
"""

import contextlib
import faulthandler
import fcntl
import os
import sys
import threading
from collections.abc import Callable, Iterator

PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 16
LINE_BYTES_MAX = 4096
STDERR = 2


@contextlib.contextmanager
def grpc_lines(on_line: Callable[[str], None]) -> Iterator[None]:
    """
    Call *on_line*, in a separate thread, with each line that gRPC writes.

    This affects the whole process. Only one instance may be active at a time.
    """
    real = os.dup(STDERR)
    reading, writing = os.pipe()
    with contextlib.suppress(
        OSError
    ):  # The system sets a lower limit; the pipe stays smaller.
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    # Writing must never block: the writer may hold a lock that the reader needs.
    os.set_blocking(writing, False)
    thread = threading.Thread(
        target=_read, args=(reading, on_line), name="grpc-stderr", daemon=True
    )
    original = sys.stderr
    with os.fdopen(os.dup(real), "w", buffering=1, errors="backslashreplace") as ours:
        sys.stderr = ours
        faulthandler.enable(real)
        os.dup2(writing, STDERR)
        os.close(writing)
        thread.start()
        try:
            yield
        finally:
            os.dup2(real, STDERR)  # This closes the pipe, and so ends the thread.
            thread.join()
            faulthandler.disable()
            os.close(real)
            sys.stderr = original


def _read(descriptor: int, on_line: Callable[[str], None]) -> None:
    rest = b""
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while part := pipe.read(READ_BYTES):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                on_line(line[:LINE_BYTES_MAX].decode(errors="replace"))
            rest = rest[-LINE_BYTES_MAX:]

# SPDX-License-Identifier: Apache-2.0
"""
What gRPC writes to standard error, as lines for us.

Its C core knows why a handshake has failed and tells nobody, but for a line that
it writes to file descriptor 2. So a node lets it write into a pipe. Python's own
`sys.stderr` stays what it was, and so does the log.
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
    Call *on_line*, in a thread of its own, with each line that gRPC writes.

    For the whole process; once at a time.
    """
    real = os.dup(STDERR)
    reading, writing = os.pipe()
    with contextlib.suppress(OSError):  # A limit of the system; then it is smaller.
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    # Who writes must never wait for us: they may hold what we need to read.
    os.set_blocking(writing, False)
    thread = threading.Thread(
        target=_read, args=(reading, on_line), name="grpc-stderr", daemon=True
    )
    before = sys.stderr
    with os.fdopen(os.dup(real), "w", buffering=1, errors="backslashreplace") as ours:
        sys.stderr = ours
        faulthandler.enable(real)
        os.dup2(writing, STDERR)
        os.close(writing)
        thread.start()
        try:
            yield
        finally:
            os.dup2(real, STDERR)  # The pipe ends here, and with it the thread.
            thread.join()
            faulthandler.disable()
            os.close(real)
            sys.stderr = before


def _read(descriptor: int, on_line: Callable[[str], None]) -> None:
    rest = b""
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while part := pipe.read(READ_BYTES):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                on_line(line[:LINE_BYTES_MAX].decode(errors="replace"))
            rest = rest[-LINE_BYTES_MAX:]

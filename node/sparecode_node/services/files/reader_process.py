# SPDX-License-Identifier: Apache-2.0
"""
The process that reads one file: `file_reader` starts it and holds the other ends.

It gets the file and its password on standard input, and answers on standard output. It
keeps nothing: it can write no file, and leaves no core dump. After an unexpected
exception it reports the type and the place. The message could quote a seed.
"""

import contextlib
import os
import resource
import signal
import sys
import traceback

from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files.pskc_files import read_pskc
from sparecode_node.services.files.row_messages import (
    EXIT_BROKEN,
    EXIT_MEMORY,
    answer_of,
    parse_request,
    refusal_of,
)
from sparecode_node.services.files.sdtid_files import read_sdtid
from sparecode_node.services.files.token_csv import read_token_csv
from sparecode_node.services.files.token_files import TokenFileFormat
from sparecode_node.services.files.user_csv import read_user_csv

NICE = 10
NO_CORE = 1
"""With this limit Linux writes no core file, and starts no program that collects one."""

READERS = {
    TokenFileFormat.PSKC: read_pskc,
    TokenFileFormat.SDTID: read_sdtid,
    TokenFileFormat.CSV: read_token_csv,
}


def main() -> int:
    """Read a file within the limits of the arguments: CPU s, wall s, memory bytes."""
    processor_s, wall_s, memory_bytes = map(int, sys.argv[1:])
    _limit(resource.RLIMIT_CORE, NO_CORE)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_AS, memory_bytes)
    # One second lies between the signal, which the node recognizes, and the kill.
    _limit(resource.RLIMIT_CPU, processor_s, processor_s + 1)
    signal.alarm(wall_s)  # If the node is gone.
    with contextlib.suppress(OSError):  # A sandbox may refuse it.
        os.nice(NICE)
    try:
        for line in _answer(sys.stdin.buffer.read()):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except MemoryError:
        return EXIT_MEMORY
    except Exception as error:  # noqa: BLE001 - its message may quote a seed.
        sys.stdout.write(_place(error))
        return EXIT_BROKEN
    return 0


def _place(error: Exception) -> str:
    """Return the type of an exception, and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name.strip('<>')}, line {frame.lineno}"


def _answer(request: bytes) -> list[bytes]:
    try:
        content, tokens = parse_request(request)
        if tokens is None:
            return [*answer_of(read_user_csv(content))]
        file, now_ms = tokens
        return [*answer_of(READERS[file.format](file, now_ms=now_ms))]
    except InvalidFieldError as error:
        return [refusal_of(error)]


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; never raise one that is lower already."""
    _, allowed = resource.getrlimit(what)
    hard = soft if hard is None else hard
    if allowed != resource.RLIM_INFINITY:
        hard = min(hard, allowed)
    resource.setrlimit(what, (min(soft, hard), hard))


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""
Reads uploaded files, each in a process of its own with a limit on time and memory.

A parser can take much longer for one file than for another of the same size. In a thread
of the node it would hold the interpreter's lock, and every answer would wait. The process
is killed when it passes a limit, when the caller is gone and when the node stops. The
file goes through a pipe: no argument and no file holds a seed.
"""

import asyncio
import contextlib
import logging
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass

from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files import row_messages
from sparecode_node.services.files.row_messages import (
    AnswerError,
    FileRequest,
    R,
    rows_in,
    token_request,
    user_request,
)
from sparecode_node.services.files.token_files import FileRow, TokenFile
from sparecode_node.services.files.user_csv import UserFileRow

log = logging.getLogger(__name__)

WORKER = "sparecode_node.services.files.reader_process"
AT_ONCE = 2
ANSWER_BYTES_MAX = 16 * 1024 * 1024
MIB = 1024 * 1024
PLACE = re.compile(rb"\w{1,64} in \w{1,64}, line \d{1,6}", re.ASCII)
"""Where a reader failed, as its process tells it."""
SMALLER = "nothing was imported, try a smaller file"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingLimits:
    """What the process of one file may take."""

    processor_s: int = 10
    """A key derivation of a million iterations takes a few seconds."""
    wall_s: int = 60
    memory_bytes: int = 256 * MIB
    """Of address space. The largest files that the bounds allow take 70 MiB."""


LIMITS = ReadingLimits()


class FileReader:
    """Reads the uploaded files of one node, a few at a time."""

    def __init__(self, limits: ReadingLimits | None = None) -> None:
        self._limits = limits or LIMITS
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def tokens(
        self, file: TokenFile, *, now_ms: int, timeout_s: float
    ) -> list[FileRow]:
        """
        Return every row of a file of tokens.

        Raises `InvalidFieldError` if the file cannot be read within the limits, and
        `OverloadedError` if there was no time to read it.
        """
        return await self._rows(token_request(file, now_ms), timeout_s)

    async def users(self, content: bytes, *, timeout_s: float) -> list[UserFileRow]:
        """Return every row of a file of users. Raises the same errors."""
        return await self._rows(user_request(content), timeout_s)

    async def _rows(self, request: FileRequest[R], timeout_s: float) -> list[R]:
        try:
            async with asyncio.timeout(min(timeout_s, self._limits.wall_s)):
                async with self._turns:
                    answer = await self._answer(request.data)
                return await asyncio.to_thread(rows_in, answer, request.parse_row)
        except TimeoutError:
            raise OverloadedError("the file could not be read in time") from None
        except AnswerError as error:
            log.warning("a file was not read", extra={"cause": str(error)})
            raise InvalidFieldError("content", f"reading it failed: {error}") from None

    async def _answer(self, request: bytes) -> bytes:
        """Return what the process answers. It is killed if this call is cancelled."""
        process = _Worker(self._limits)
        try:
            code, answer = await asyncio.to_thread(process.run, request)
        finally:
            process.end()
        if code == 0:
            return answer
        raise self._refusal(code, answer)

    def _refusal(self, code: int, answer: bytes = b"") -> InvalidFieldError:
        """Return why a process with this exit code has read no file; log it."""
        limits = self._limits
        match code:
            case row_messages.EXIT_MEMORY:
                cause = f"takes more than {limits.memory_bytes // MIB} MiB of memory"
            case _ if code == -signal.SIGXCPU:
                cause = f"takes more than {limits.processor_s} s of processor time"
            case row_messages.EXIT_BROKEN:
                cause = "failed"
            case _:
                cause = f"ended with {code}"
        # Anything else could hold a seed.
        place = PLACE.fullmatch(answer) if code == row_messages.EXIT_BROKEN else None
        log.warning(
            "a file was not read",
            extra={"cause": cause, "place": place[0].decode() if place else ""},
        )
        return InvalidFieldError("content", f"reading it {cause}: {SMALLER}")


class _Worker:
    """One process that reads a file. One thread runs it; any thread may end it."""

    def __init__(self, limits: ReadingLimits) -> None:
        self._limits = limits
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._begun_or_ended = threading.Lock()

    def run(self, request: bytes) -> tuple[int, bytes]:
        """Pass the request; return the exit code and the answer. Waits for the end."""
        limits = self._limits
        with self._begun_or_ended:
            if self._ended:
                return -signal.SIGKILL, b""
            self._process = subprocess.Popen(
                # -P: modules in the current folder must not be imported.
                [
                    *(sys.executable, "-P", "-B", "-m", WORKER),
                    *(str(limits.processor_s), str(limits.wall_s)),
                    str(limits.memory_bytes),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        with self._process as process:
            answer = _exchange(process, request)
            if len(answer) > ANSWER_BYTES_MAX:
                process.kill()
                raise AnswerError("the answer is too long")
        return process.returncode, answer

    def end(self) -> None:
        """Kill the process, if it still runs."""
        with self._begun_or_ended:
            self._ended = True
            if self._process is not None:
                self._process.kill()


def _exchange(process: subprocess.Popen[bytes], request: bytes) -> bytes:
    """Return the answer, or a little more of it than allowed."""
    if process.stdin is None or process.stdout is None:
        raise AnswerError("the process has no pipes")
    # It may end before it has read the request.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(request)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    return process.stdout.read(ANSWER_BYTES_MAX + 1)

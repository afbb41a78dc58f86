# SPDX-License-Identifier: Apache-2.0
"""
The program that wraps the key of the ring's file (P5; docs/key-wrapping.md).

The node runs the command of `[keys] wrap_command` with one more argument, `wrap` or
`unwrap`. The program reads one value on stdin and writes another to stdout. So the key
may stay in an HSM, a TPM or a vault that this module knows nothing about, as with the
plugins of age and the credentials of systemd.

No shell runs. No secret is in an argument, in the environment, in a file or in a
message. A program that fails, hangs, floods or answers garbage opens nothing and
replaces nothing.
"""

import base64
import contextlib
import os
import selectors
import signal
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sparecode_node.services.ambient import SystemClock
from sparecode_node.services.secrets.keyring import KeyRingError

KEY_BYTES = 32
"""What is wrapped: a key for the ring's file, not the ring itself."""
OUTPUT_BYTES_MAX = 16 * 1024
LINE_CHARACTERS_MAX = 200
EXIT_REFUSED: Final = 65
"""The program's exit code for a value that its key does not open (`EX_DATAERR`)."""
CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The only variable that a program inherits: systemd's folder, perhaps with a PIN."""
_CHUNK_BYTES = 4096
_POLL_S = 0.05
_REAP_S = 1.0


class _TooLongError(Exception):
    """The program wrote more than it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrapCommand:
    """A program and its arguments, and its time limit."""

    argv: tuple[str, ...]
    timeout_s: float = 10.0

    def __str__(self) -> str:
        """Name the program. Its arguments are not shown."""
        return self.argv[0]

    def wrap(self, key: bytes) -> bytes:
        """
        Return *key* wrapped, after unwrapping it once. Raises `KeyRingError`.

        A program that could not open its own result would lose the ring.
        """
        wrapped = self._run("wrap", key)
        if not wrapped:
            raise self._error("wrap", "printed nothing")
        if _shows(wrapped, key):
            raise self._error("wrap", "printed the key itself, which it must encrypt")
        if self.unwrap(wrapped) != key:
            raise self._error("unwrap", "does not return the key that `wrap` was given")
        return wrapped

    def unwrap(self, wrapped: bytes) -> bytes:
        """Return the key. Raises `KeyRingError`."""
        key = self._run("unwrap", wrapped)
        if len(key) != KEY_BYTES:
            raise self._error(
                "unwrap",
                f"printed {len(key)} bytes instead of the {KEY_BYTES} of a key",
            )
        return key

    def _run(self, verb: str, content: bytes) -> bytes:
        """Return what the program prints. Raises `KeyRingError` unless it exits with 0."""
        self._check_program()
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own command.
                [*self.argv, verb],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise self._unusable(error) from error
        try:
            exchange = _Exchange(process, content)
            exchange.run(self.timeout_s)
        except TimeoutError:
            raise self._error(
                verb, f"did not end within {self.timeout_s:g} s"
            ) from None
        except _TooLongError:
            raise self._error(
                verb, f"printed more than {OUTPUT_BYTES_MAX} bytes"
            ) from None
        finally:
            _end(process)
        if process.returncode:
            raise self._failure(verb, process.returncode, exchange, content)
        return bytes(exchange.output)

    def _check_program(self) -> None:
        """Refuse a program that another user can replace: it would read the key."""
        try:
            status = Path(self.argv[0]).stat()
        except OSError as error:
            raise self._unusable(error) from error
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise KeyRingError(
                f"wrap command {self}: other users can change it; only its owner may: "
                f"chmod go-w {self}"
            )
        user = os.geteuid()
        if user and status.st_uid not in {0, user}:
            raise KeyRingError(
                f"wrap command {self}: belongs to user {status.st_uid}, who can change "
                f"it; it must belong to root: chown root {self}"
            )

    def _unusable(self, error: OSError) -> KeyRingError:
        return KeyRingError(
            f"wrap command {self}: {error.strerror}: install it, or correct "
            "[keys] wrap_command"
        )

    def _failure(
        self, verb: str, code: int, exchange: "_Exchange", content: bytes
    ) -> KeyRingError:
        ended = (
            f"ended with exit code {code}"
            if code > 0
            else f"was ended by signal {-code}"
        )
        line = _last_line(exchange.errors)
        if any(_shows(line.encode(), each) for each in (content, exchange.output)):
            line = "(its message is not shown, because it repeats a secret)"
        words = f"{ended}: {line or '(it printed no reason)'}"
        if verb == "unwrap" and code == EXIT_REFUSED:
            return KeyRingError(
                f"wrap command {self} unwrap: {words}; restore the key that wrapped the "
                "ring; or remove this node, and let it join again under a new id"
            )
        return self._error(verb, words)

    def _error(self, verb: str, words: str) -> KeyRingError:
        return KeyRingError(
            f"wrap command {self} {verb}: {words}; repair it, then check it with "
            "`sparecode-node doctor`"
        )


def _environment() -> dict[str, str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    if directory := os.environ.get(CREDENTIALS):
        environment[CREDENTIALS] = directory
    return environment


class _Exchange:
    """The pipes of a running program: what it still has to get, and what it wrote."""

    def __init__(self, process: subprocess.Popen[bytes], content: bytes) -> None:
        if not (process.stdin and process.stdout and process.stderr):
            raise ValueError("the program has no pipes")
        self._process = process
        self._stdin: IO[bytes] = process.stdin
        self._left = memoryview(content)
        self.output, self.errors = bytearray(), bytearray()
        self._selector = selectors.DefaultSelector()
        for stream, events, kept in (
            (process.stdin, selectors.EVENT_WRITE, None),
            (process.stdout, selectors.EVENT_READ, self.output),
            (process.stderr, selectors.EVENT_READ, self.errors),
        ):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, events, kept)

    def run(self, timeout_s: float) -> None:
        """
        Pass the content, and read until the program has ended.

        A child of the program may keep the pipes open, so their end is not waited for.
        Raises `TimeoutError` and `_TooLongError`.
        """
        clock = SystemClock()
        until_s = clock.monotonic_s() + timeout_s
        with self._selector:
            while (left_s := until_s - clock.monotonic_s()) > 0:
                ended = self._process.poll() is not None
                wrote = self._move(0 if ended else min(left_s, _POLL_S))
                if len(self.output) > OUTPUT_BYTES_MAX:
                    raise _TooLongError
                if ended and not wrote:
                    return
        raise TimeoutError

    def _move(self, wait_s: float) -> bool:
        """Move what is ready; return whether the program wrote something."""
        wrote = False
        for key, _ in self._selector.select(wait_s):
            if key.data is None:
                self._write()
            elif chunk := os.read(key.fd, _CHUNK_BYTES):
                key.data.extend(chunk)
                wrote = True
            else:
                self._selector.unregister(key.fileobj)
        del self.errors[:-OUTPUT_BYTES_MAX]
        return wrote

    def _write(self) -> None:
        try:
            sent = os.write(self._stdin.fileno(), self._left[:_CHUNK_BYTES])
        except BrokenPipeError:  # The program reads no more; its exit code says why.
            sent = len(self._left)
        self._left = self._left[sent:]
        if not self._left:
            self._selector.unregister(self._stdin)
            self._stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes, and kill the program and its children if it still runs."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_REAP_S)


def _last_line(errors: bytearray) -> str:
    lines = errors.decode(errors="replace").strip().splitlines() or [""]
    line = "".join(each if each.isprintable() else " " for each in lines[-1])
    return line[:LINE_CHARACTERS_MAX]


def _shows(text: bytes, secret: bytes | bytearray) -> bool:
    """Return whether a text holds a secret, as it is or in a usual notation."""
    if not secret:
        return False
    bare = base64.b64encode(secret).rstrip(b"=")
    return (
        secret in text
        or bare in text
        or base64.urlsafe_b64encode(secret).rstrip(b"=") in text
        or secret.hex().encode() in text.lower()
    )

# SPDX-License-Identifier: Apache-2.0
"""
The node's local socket, for root on its machine only (P4).

It resets administrators, and tells `doctor` about the packets of RADIUS clients.

It is a Unix socket in the data folder, mode 0600. The kernel names the caller
(`SO_PEERCRED`): root, or the user that the node runs as. Each connection carries one
request and one answer, each a line of JSON.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sparecode_node.replication.errors import ProposeError
from sparecode_node.services.errors import ServiceError
from sparecode_node.services.people.resets import Resets

NAME = "local.sock"
LINE_BYTES_MAX = 8192
ANSWER_BYTES_MAX = 2**20
"""More than 5,000 RADIUS clients need."""
TIMEOUT_S = 60.0
RESET = "reset-administrator"
RADIUS_PACKETS = "radius-packets"
_CREDENTIALS = struct.Struct("3i")
"""The result of `SO_PEERCRED`: pid, uid, gid (unix(7))."""
_KEEP_FILE: dict[str, Any] = (
    {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
)
"""
`stop` deletes the file. Since Python 3.13 asyncio would try to, by the path that was
lent for `start` and is gone, and would log an error.
"""

log = logging.getLogger(__name__)


class LocalSocketError(Exception):
    """The node cannot be reached, or refuses; the message says why."""


class LocalSocket:
    """Listens in the data folder. `start` it once, `stop` it once."""

    def __init__(
        self,
        directory: Path,
        administration: Resets,
        packets: Callable[[], Mapping[tuple[str, str], int]] = dict,
    ) -> None:
        self._directory = directory
        self._administration = administration
        self._packets = packets
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; replace the socket of a node that was killed."""
        (self._directory / NAME).unlink(missing_ok=True)
        with _short_path(self._directory) as path:
            mask = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(
                    self._serve, path, limit=LINE_BYTES_MAX, **_KEEP_FILE
                )
            finally:
                os.umask(mask)

    async def stop(self) -> None:
        """Stop listening, and delete the socket."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            (self._directory / NAME).unlink(missing_ok=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                uid = peer_uid(writer.get_extra_info("socket"))
                answer = await self._answer(await reader.readline(), uid)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, ValueError, OSError) as error:
            log.warning("local_call_failed", extra={"cause": type(error).__name__})
        finally:
            writer.close()

    async def _answer(self, line: bytes, uid: int) -> dict[str, Any]:
        """Carry out a request and return the answer, which never has the password."""
        if uid not in (0, os.geteuid()):
            log.warning("local_call_refused", extra={"uid": uid})
            return {"error": "only root may call this"}
        try:
            request = json.loads(line)
            if request["action"] == RADIUS_PACKETS:
                return {
                    "packets": [[*key, count] for key, count in self._packets().items()]
                }
            action, name = request["action"], request["administrator"]
            password = request["password"]
            second_factor = request.get("second_factor", False)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {"error": "not a request"}
        if action != RESET or not (
            isinstance(name, str)
            and isinstance(password, str)
            and isinstance(second_factor, bool)
        ):
            return {"error": "not a request"}
        try:
            pending = await self._administration.reset_administrator(
                name, password, uid=uid, second_factor=second_factor
            )
        except (ServiceError, ProposeError) as error:
            return {"error": str(error)}
        log.warning("administrator_reset", extra={"administrator": name, "uid": uid})
        return {"done": RESET, "due_at_ms": pending.due_at_ms if pending else 0}


def radius_packets(directory: Path) -> dict[tuple[str, str], int]:
    """
    Return the RADIUS packets by agent and verdict, since the node started.

    Raises `LocalSocketError`.
    """
    answer = _ask(directory, {"action": RADIUS_PACKETS})
    return {(name, verdict): count for name, verdict, count in answer["packets"]}


def peer_uid(connection: socket.socket) -> int:
    """Return the user id of the process at the other end, from the kernel."""
    raw = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
    )
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return int(uid)


def reset_administrator(
    directory: Path, name: str, password: str, *, second_factor: bool = False
) -> int:
    """
    Request a temporary password through the node that runs in *directory*.

    Return when it takes effect, in milliseconds since the Unix epoch; 0: it has.

    Raises `LocalSocketError`.
    """
    request = {
        "action": RESET,
        "administrator": name,
        "password": password,
        "second_factor": second_factor,
    }
    return int(_ask(directory, request).get("due_at_ms", 0))


def _ask(directory: Path, request: Mapping[str, object]) -> dict[str, Any]:
    try:
        with (
            _short_path(directory) as path,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            connection.settimeout(TIMEOUT_S)
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer: dict[str, Any] = json.loads(answers.readline(ANSWER_BYTES_MAX))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise LocalSocketError(
            f"{directory / NAME}: no node is running here; start it first"
        ) from error
    except PermissionError as error:
        raise LocalSocketError(
            f"{directory / NAME}: only root, or the node's own user, may do this"
        ) from error
    except (OSError, ValueError) as error:
        raise LocalSocketError(f"{directory / NAME}: {error}") from error
    if "error" in answer:
        raise LocalSocketError(str(answer["error"]))
    return answer


@contextlib.contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """Provide a path of the socket that is short enough for a socket address."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)

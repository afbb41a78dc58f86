# SPDX-License-Identifier: Apache-2.0
"""
Connections of HTTPS clients, bounded from the moment they are accepted.

uvicorn counts a connection only after its TLS handshake, for which asyncio waits a
minute. Until then, any caller could use up all the files that the node may open.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Pause after the system refused a connection, in seconds."""


class Tracked(asyncio.Protocol):
    """A connection that reports its end."""

    ended: asyncio.Event


class Acceptor:
    """Accepts connections at a socket; waits while too many are open. `close` it once."""

    def __init__(
        self,
        listening: socket.socket,
        *,
        name: str,
        connect: Callable[[], Tracked],
        context: Callable[[], ssl.SSLContext],
        handshake_s: float,
        free: asyncio.Semaphore,
        on_failed: Callable[[OSError], None] | None = None,
    ) -> None:
        """
        *name*: of the listener. *context*: called for each connection.

        *free*: how many more connections may be open on all sockets that share it.

        *on_failed*: called when a handshake fails.
        """
        self._listening = listening
        self._name = name
        self._connect = connect
        self._context = context
        self._handshake_s = handshake_s
        self._free = free
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._serving: set[asyncio.Task[None]] = set()
        self._shaking_hands: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept(), name=f"{name} accepts")

    def close(self) -> None:
        """Accept no more connections; running requests are answered."""
        self._accepting.cancel()
        for task in self._shaking_hands:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the last connection has ended."""
        tasks: list[Awaitable[None]] = [self._accepting, *self._serving]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            await self._free.acquire()
            try:
                connection, _ = await self._loop.sock_accept(self._listening)
            except OSError as error:
                self._free.release()
                log.warning(
                    "accept_failed",
                    extra={"listener": self._name, "cause": error.strerror},
                )
                await asyncio.sleep(PAUSE_S)
                continue
            except BaseException:
                self._free.release()
                raise
            task = asyncio.create_task(self._serve(connection))
            for tasks in (self._serving, self._shaking_hands):
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            task.add_done_callback(lambda _: self._free.release())

    async def _serve(self, connection: socket.socket) -> None:
        protocol = self._connect()
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=self._handshake_s,
            )
        except OSError as error:  # No handshake, none in time, or not TLS at all.
            if self._on_failed is not None:
                self._on_failed(error)
            return
        finally:
            if task := asyncio.current_task():
                self._shaking_hands.discard(task)
        await protocol.ended.wait()

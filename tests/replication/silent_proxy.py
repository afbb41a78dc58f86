# SPDX-License-Identifier: Apache-2.0
"""
A TCP proxy whose connections can die silently: it goes on acknowledging bytes.

No end of such a connection hears of it. Connections that are opened later work, unless
the proxy is stuck.
"""

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

CHUNK_BYTES = 64 * 1024

PACED_BYTES = 2 * 1024
"""What a slow connection carries at once."""

TLS_RECORD_MAX = 16 * 1024
"""The length of a TLS record is in the fourth and fifth of its bytes."""


class Death(enum.Enum):
    """What happens to the open connections."""

    SWALLOWED = enum.auto()
    """The bytes of both directions vanish."""
    REQUESTS_SWALLOWED = enum.auto()
    """The bytes to the called end vanish. The other direction works."""
    ANSWERS_SWALLOWED = enum.auto()
    """The bytes to the calling end vanish. The other direction works."""
    CLOSED_ONE_WAY = enum.auto()
    """The called end is told that the connection is closed. The calling end is not."""
    LENGTH_CORRUPTED = enum.auto()
    """The called end waits for the rest of a TLS record that never comes."""


@dataclass(eq=False)
class Connection:
    """One connection through the proxy."""

    caller: asyncio.StreamWriter
    called: asyncio.StreamWriter
    death: Death | None = None
    pace: Callable[[int], Awaitable[object]] | None = None
    """Waits until it may carry this many bytes more to the calling end."""
    closed_by_called: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the called end has closed it."""
    swallowed: int = 0
    """Bytes that did not arrive."""
    _corrupted: bool = False

    async def carry_requests(self, reader: asyncio.StreamReader) -> None:
        """Carry bytes to the called end."""
        while data := await reader.read(CHUNK_BYTES):
            if self.death in (None, Death.ANSWERS_SWALLOWED):
                self.called.write(data)
            elif self.death is Death.LENGTH_CORRUPTED and not self._corrupted:
                # And nothing after it: more bytes would complete a wrong record, and
                # the called end would close the connection.
                self._corrupted = True
                length = TLS_RECORD_MAX.to_bytes(2, "big")
                self.called.write(data[:3] + length + data[5:])
            else:
                self.swallowed += len(data)

    async def carry_answers(self, reader: asyncio.StreamReader) -> None:
        """Carry bytes to the calling end."""
        while data := await reader.read(PACED_BYTES if self.pace else CHUNK_BYTES):
            if self.death in (None, Death.REQUESTS_SWALLOWED, Death.LENGTH_CORRUPTED):
                if self.pace is not None:
                    await self.pace(len(data))
                self.caller.write(data)
            else:
                self.swallowed += len(data)
        self.closed_by_called.set()

    def die(self, death: Death) -> None:
        """Carry no byte, or not as it should, from now on."""
        self.death = death
        if death is Death.CLOSED_ONE_WAY:
            self.called.write_eof()


class SilentProxy:
    """Stands before one listener."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.connections: list[Connection] = []
        """Those that are open: gRPC may give up a slow one and open another."""
        self.stuck: Death | None = None
        """How connections that are opened now are dead from the beginning."""
        self.pace: Callable[[int], Awaitable[object]] | None = None
        """
        For connections that are opened now: waits until one may carry this many bytes
        more to the calling end.
        """
        self.tasks: set[asyncio.Task[None]] = set()
        self._swallowed_before = 0

    @property
    def swallowed(self) -> int:
        """Bytes that did not arrive, of all connections."""
        return self._swallowed_before + sum(each.swallowed for each in self.connections)

    def connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Take a connection."""
        task = asyncio.create_task(self._serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # It may not have begun.

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry bytes until one end closes the connection, or a dead one until the end."""
        called = None
        try:
            answers, called = await asyncio.open_connection(self._host, self._port)
            connection = Connection(writer, called, self.stuck, self.pace)
            self.connections.append(connection)
            carrying = [
                asyncio.create_task(connection.carry_requests(reader)),
                asyncio.create_task(connection.carry_answers(answers)),
            ]
            try:
                await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
                if connection.death is not None:
                    await asyncio.wait(carrying)
            finally:
                self.connections.remove(connection)
                self._swallowed_before += connection.swallowed
                for task in carrying:
                    task.cancel()
                await asyncio.gather(*carrying, return_exceptions=True)
        except OSError:
            pass  # The called end does not listen.
        finally:
            writer.close()
            if called is not None:
                called.close()

    def kill(self, death: Death) -> list[Connection]:
        """Let all open connections die; return them."""
        alive = [each for each in self.connections if each.death is None]
        for connection in alive:
            connection.die(death)
        return alive


@contextlib.asynccontextmanager
async def before(
    target: str, address: str, proxy: SilentProxy | None = None
) -> AsyncIterator[SilentProxy]:
    """Run a proxy at *address* before the listener at *target*."""
    proxy = proxy or SilentProxy(target)
    host, _, port = address.rpartition(":")
    server = await asyncio.start_server(proxy.connect, host, int(port))
    try:
        yield proxy
    finally:
        server.close()
        tasks = tuple(proxy.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

# SPDX-License-Identifier: Apache-2.0
"""A receiver of webhooks, over TLS on this machine, that can misbehave."""

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from sparecode_node.membership.certificates import Authority

AUTHORITY = Authority.create("receivers", now=dt.datetime.now(dt.UTC))
OK = b"HTTP/1.1 204 No Content\r\n\r\n"
REFUSED = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
LOCAL = "127.0.0.1"


@dataclass(kw_only=True)
class Receiver:
    """Records requests; `answer` returns the bytes of each answer, or None: silence."""

    url: str = ""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[int], bytes | None] = lambda _: OK
    connections: int = 0
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    drips: bool = False
    """Whether an answer never ends, though some of it arrives again and again."""
    bind: str = LOCAL
    port: int = 0
    tls: ssl.SSLContext | None = None
    server: asyncio.Server | None = None

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.requests]

    async def open(self) -> None:
        """Listen; again at the same port, if it was closed."""
        self.server = await asyncio.start_server(
            self.serve, self.bind, self.port, ssl=self.tls
        )
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"https://{self.bind}:{self.port}/in?k=v"

    def close(self) -> int:
        """Refuse connections, and abort those that are open; return how many."""
        assert self.server is not None
        self.server.close()
        is_open = [each for each in self.writers if not each.transport.is_closing()]
        for writer in is_open:
            writer.transport.abort()
        self.writers.clear()
        return len(is_open)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.writers.add(writer)
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = {
                    name.lower(): value
                    for name, _, value in (
                        line.partition(": ") for line in head.splitlines()[1:] if line
                    )
                }
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((headers, body))
                answer = self.answer(len(self.requests))
                if answer is None:
                    await reader.read()  # Until the caller gives up.
                    return
                writer.write(answer)
                await writer.drain()
                while self.drips:
                    await asyncio.sleep(0.01)
                    writer.write(b".")
                    await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def receiver(
    folder: Path, *, host: str = LOCAL, bind: str = LOCAL
) -> AsyncIterator[Receiver]:
    """Start a receiver at the address *bind*, whose certificate is for *host*."""
    issued = AUTHORITY.issue_member("hook", hosts=[host], now=dt.datetime.now(dt.UTC))
    (folder / "hook.pem").write_bytes(issued.certificate)
    (folder / "hook.key").write_bytes(issued.key)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "hook.pem", folder / "hook.key")
    this = Receiver(bind=bind, tls=tls)
    await this.open()
    try:
        yield this
    finally:
        assert this.server is not None
        this.server.close()
        for task in this.tasks:
            task.cancel()
        await asyncio.gather(*this.tasks, return_exceptions=True)
        for writer in this.writers:
            writer.transport.abort()  # A process that was killed closes nothing.
            with contextlib.suppress(OSError):
                await writer.wait_closed()

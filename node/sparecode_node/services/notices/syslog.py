# SPDX-License-Identifier: Apache-2.0
"""
Syslog over TLS (RFC 5424, RFC 5425), with an OCSF event as the message.

Syslog has no acknowledgements. So events count as delivered once the receiver's machine
has acknowledged all their bytes by TCP, and the connection is still open. A receiver
that crashes at that moment may lose some, which no sender can notice.
"""

import asyncio
import contextlib
import datetime as dt
import fcntl
import json
import socket
import ssl
import struct
import termios
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

import httpcore

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.notices import Channel
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.services.notices.addresses import (
    SYSLOG_PORT,
    SYSLOG_SCHEME,
    AddressError,
    CheckedBackend,
    parse_url,
)
from sparecode_node.services.notices.ocsf import ocsf_event
from sparecode_node.services.notices.outcomes import Attempt, Exchange, Outcome
from sparecode_node.services.notices.webhook import CONNECT_S, TOTAL_S, tls_settings

FACILITY: Final = 13
"""Log audit."""
WARNING, NOTICE = 4, 5
MESSAGE_ID_MAX = 32
MESSAGE_BYTES_MAX = 8192
"""What every receiver should take (RFC 5425, 4.3.1); it must take only 2048."""
SEQUENCE_ID_MAX = 2**31 - 1
"""`sequenceId` begins again at 1 after this (RFC 5424, 7.3.1)."""
READS_MAX, READ_BYTES = 64, 1024
LOOK_S = 0.01
"""Between two looks at what the receiver's machine has acknowledged."""


@dataclass(slots=True, kw_only=True)
class SyslogSender:
    """Sends events to one receiver, over one connection."""

    host: str
    port: int
    cluster_id: str
    node_id: str
    tls: ssl.SSLContext
    backend: CheckedBackend
    _link: "_Link | None" = field(default=None)

    @classmethod
    async def open(cls, channel: Channel, cluster_id: str, node_id: str) -> Self:
        """Prepare a sender. Raises `ssl.SSLError` and `ValueError` for bad settings."""
        try:
            parts = parse_url(channel.address, SYSLOG_SCHEME)
        except AddressError as error:
            raise ValueError(str(error)) from None
        return cls(
            host=parts.hostname or "",
            port=parts.port or SYSLOG_PORT,
            cluster_id=cluster_id,
            node_id=node_id,
            tls=await asyncio.to_thread(tls_settings, channel.authority),
            backend=CheckedBackend(allow_private=channel.allow_private),
        )

    async def resume(self) -> int | None:
        """Return None: the state knows what was delivered."""
        return None

    async def send_all(self, events: Sequence[AuditEvent]) -> Attempt:
        """Send events, and wait until the receiver's machine has them."""
        return await self._send(b"".join(map(frame, map(self._message, events))))

    async def exchange(self, notice: StoredNotice, now_ms: int) -> Exchange:
        """Send one message, and return it. Syslog has no answers."""
        del now_ms
        message = self._message(notice.event)
        attempt = await self._send(frame(message))
        return Exchange(sent=message.decode(), received="", attempt=attempt)

    async def close(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            link.listening.cancel()
            await asyncio.gather(link.listening, return_exceptions=True)
            await link.stream.aclose()

    def _message(self, event: AuditEvent) -> bytes:
        return syslog_message(event, cluster_id=self.cluster_id, node_id=self.node_id)

    async def _send(self, data: bytes) -> Attempt:
        try:
            async with asyncio.timeout(TOTAL_S):
                if self._link is not None and self._link.listening.done():
                    await self.close()
                if self._link is None:
                    self._link = await self._connect()
                await self._link.deliver(data)
        except AddressError as error:
            cause = str(error)
        except TimeoutError:
            cause = f"not received within {TOTAL_S:g} s"
        except (httpcore.NetworkError, httpcore.TimeoutException, OSError) as error:
            cause = f"cannot connect: {str(error) or type(error).__name__}"
        else:
            return Attempt(Outcome.DELIVERED, "")
        await self.close()
        return Attempt(Outcome.UNREACHABLE, cause)

    async def _connect(self) -> "_Link":
        plain = await self.backend.connect_tcp(self.host, self.port, CONNECT_S)
        stream = await plain.start_tls(self.tls, self.host, CONNECT_S)
        listening = asyncio.create_task(_listen(stream), name="syslog receiver")
        return _Link(stream=stream, listening=listening)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """An open connection."""

    stream: httpcore.AsyncNetworkStream
    listening: "asyncio.Task[None]"
    """Ends when the receiver closes the connection."""

    async def deliver(self, data: bytes) -> None:
        """Send bytes until the receiver's machine has them. Raises `WriteError`."""
        await self.stream.write(data, timeout=TOTAL_S)
        connection: socket.socket = self.stream.get_extra_info("socket")
        while _unacknowledged(connection):  # noqa: ASYNC110 - no event tells it.
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(0)  # A close that has arrived already is read now.
        if self.listening.done():
            raise httpcore.WriteError("the receiver has closed the connection")


async def _listen(stream: httpcore.AsyncNetworkStream) -> None:
    """Read until the receiver closes, or says more than any receiver of syslog does."""
    with contextlib.suppress(httpcore.NetworkError, OSError):
        for _ in range(READS_MAX):
            if not await stream.read(READ_BYTES):
                return


def frame(message: bytes) -> bytes:
    """Return a message behind its length (RFC 5425, 4.3)."""
    return b"%d %s" % (len(message), message)


def syslog_message(event: AuditEvent, *, cluster_id: str, node_id: str) -> bytes:
    """
    Return an event as a message of RFC 5424, in ASCII, of at most `MESSAGE_BYTES_MAX`.

    The texts of an event that is too long are cut, alike in length, and the message says
    so. It stays valid JSON: a receiver that cuts it would leave neither.
    """
    message = _message(event, cluster_id=cluster_id, node_id=node_id)
    length = max(map(len, (event.detail, event.target, event.actor)))
    while len(message) > MESSAGE_BYTES_MAX:
        length //= 2
        shorter = replace(
            event,
            detail=event.detail[:length],
            target=event.target[:length],
            actor=event.actor[:length],
        )
        message = _message(shorter, cluster_id=cluster_id, node_id=node_id, cut=True)
    return message


def _message(
    event: AuditEvent, *, cluster_id: str, node_id: str, cut: bool = False
) -> bytes:
    severity = WARNING if event.outcome == "refused" else NOTICE
    at = dt.datetime.fromtimestamp(event.at_ms / 1000, tz=dt.UTC)
    time = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    number = (event.sequence - 1) % SEQUENCE_ID_MAX + 1
    content = ocsf_event(event, cluster_id, cut=cut)
    body = json.dumps(content, separators=(",", ":"))
    return (
        f"<{FACILITY * 8 + severity}>1 {time} {node_id} sparecode {cluster_id} "
        f'{event.action[:MESSAGE_ID_MAX]} [meta sequenceId="{number}"] {body}'
    ).encode("ascii")


def _unacknowledged(connection: socket.socket) -> int:
    """
    Return the bytes that the receiver's machine has not acknowledged (Linux).

    Raises `WriteError` if the connection was reset meanwhile.
    """
    if connection.fileno() < 0:
        raise httpcore.WriteError("the receiver has closed the connection")
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    (count,) = struct.unpack("i", answer)
    return int(count)

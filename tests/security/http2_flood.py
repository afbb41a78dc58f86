# SPDX-License-Identifier: Apache-2.0
"""
A caller without a session who sends HTTP/2 frames as fast as a listener reads them.

    python -m tests.security.http2_flood PORT KIND SECONDS

Only to this machine, over one connection, without a second one when it is closed. Prints the
frames that were sent, and for how long the connection stood.
"""

import collections
import contextlib
import dataclasses
import json
import select
import socket
import ssl
import struct
import sys
import time
from dataclasses import dataclass

HOST = "127.0.0.1"
SECONDS_MAX = 30.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
END_STREAM, END_HEADERS = 0x1, 0x4
HEAD_BYTES = 9
BATCH = 512
"""Frames, or pairs of them, of one write."""


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Return a frame (RFC 9113, 4.1)."""
    return (
        struct.pack(">I", len(payload))[1:]
        + struct.pack(">BBI", kind, flags, stream)
        + payload
    )


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header in full (RFC 7541, 6.2.2): it enters no table."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


CALL = b"\x83\x87" + b"".join(
    literal(name, value)
    for name, value in (
        (b":path", b"/sparecode.v1.PolicyService/GetPolicy"),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
)
"""The headers of a call without a session."""


def call(stream: int, *, end: bool) -> bytes:
    flags = END_HEADERS | (END_STREAM if end else 0)
    return frame(HEADERS, CALL, flags=flags, stream=stream)


def batch(kind: str, stream: int) -> bytes:
    """Return the next frames of a flood; *stream*: the first free one."""
    match kind:
        case "resets":
            cancel = struct.pack(">I", 8)
            return b"".join(
                call(each, end=False) + frame(RST_STREAM, cancel, stream=each)
                for each in range(stream, stream + 2 * BATCH, 2)
            )
        case "calls":
            return b"".join(
                call(each, end=True) for each in range(stream, stream + 2 * BATCH, 2)
            )
        case "settings":
            return frame(SETTINGS) * BATCH
        case "windows":
            values = [struct.pack(">HI", 4, size) for size in (65_535, 65_536)]
            return b"".join(frame(SETTINGS, value) for value in values) * (BATCH // 2)
        case "pings":
            return frame(PING, bytes(8)) * BATCH
    raise ValueError(kind)


class Answers:
    """Counts the frames that the listener answers with."""

    def __init__(self) -> None:
        self.kinds: collections.Counter[int] = collections.Counter()
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Count the frames in bytes that have arrived."""
        data, at = self._rest + data, 0
        while len(data) - at >= HEAD_BYTES:
            length = int.from_bytes(data[at : at + 3])
            if len(data) - at < HEAD_BYTES + length:
                break
            self.kinds[data[at + 3]] += 1
            at += HEAD_BYTES + length
        self._rest = data[at:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What one connection has sent and got."""

    sent: int
    """Frames, or pairs of them."""
    lasted_s: float
    answers: dict[int, int]
    """Frames by their kind."""


def flood(port: int, kind: str, seconds: float) -> Flood:
    """Send frames until the listener closes the connection, or the time has passed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    answers, began = Answers(), time.monotonic()
    ends = began + min(seconds, SECONDS_MAX)
    written, stream, waiting = 0, 1, PREFACE + frame(SETTINGS)
    with (
        socket.create_connection((HOST, port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.setblocking(False)
        while time.monotonic() < ends:
            select.select([connection], [connection], [], 0.1)
            try:
                with contextlib.suppress(ssl.SSLWantReadError):
                    if not (data := connection.recv(65_536)):
                        break
                    answers.take(data)
                with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    waiting = waiting[connection.send(waiting) :]
            except OSError:
                break
            if not waiting:
                waiting = batch(kind, stream)
                written, stream = written + BATCH, stream + 2 * BATCH
    return Flood(
        sent=written,
        lasted_s=time.monotonic() - began,
        answers=dict(answers.kinds),
    )


if __name__ == "__main__":
    done = flood(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
    print(json.dumps(dataclasses.asdict(done)))  # noqa: T201

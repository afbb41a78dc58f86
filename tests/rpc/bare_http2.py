# SPDX-License-Identifier: Apache-2.0
"""gRPC by hand, over TLS: bytes that no library of gRPC would send."""

import asyncio
import contextlib
import re
import ssl
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sparecode_node.membership.certificates import Issued

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
PATIENCE_S = 10

Fields = Iterable[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame (RFC 9113, 4.1)."""
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
    return head + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header field without an index or Huffman code (RFC 7541, 6.2.2)."""
    assert max(len(name), len(value)) < 127
    return b"".join((b"\0", *(bytes([len(each)]) + each for each in (name, value))))


def request(path: bytes, message: bytes | None = b"", metadata: Fields = ()) -> bytes:
    """Return the bytes of a connection with one call. *message* None: it sends none."""
    fields = (
        *((b":method", b"POST"), (b":scheme", b"https"), (b":path", path)),
        *((b":authority", b"node"), (b"te", b"trailers")),
        (b"content-type", b"application/grpc"),
        *metadata,
    )
    sent = (
        PREFACE
        + frame(SETTINGS, 0, 0)
        + frame(HEADERS, END_HEADERS, 1, b"".join(literal(*each) for each in fields))
    )
    if message is None:
        return sent
    envelope = b"\0" + struct.pack(">I", len(message)) + message
    return sent + frame(DATA, END_STREAM, 1, envelope)


async def status_of(address: str, sent: bytes, own: Issued | None = None) -> int | None:
    """Connect, send bytes, and return the gRPC status of the answer; None: none came."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=_context(own))
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(sent)
            return await _status(reader)
    finally:
        writer.transport.abort()


async def _status(reader: asyncio.StreamReader) -> int | None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            found = re.search(rb"grpc-status[\x01\x02](\d{1,2})", payload)
            if head[3] == HEADERS and found:
                return int(found[1])
    return None


def _context(own: Issued | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if own is not None:
        with tempfile.TemporaryDirectory() as folder:
            chain, key = Path(folder, "own.pem"), Path(folder, "own.key")
            chain.write_bytes(own.certificate)
            key.write_bytes(own.key)
            context.load_cert_chain(chain, key)
    return context

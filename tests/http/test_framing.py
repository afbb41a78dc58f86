# SPDX-License-Identifier: Apache-2.0
"""
What can be read as two different requests is refused (RFC 9112, 2.2 and 6.1).

A proxy that reads such bytes in another way would pass one caller's bytes on as another
caller's request.
"""

import asyncio
import contextlib

import h11
import pytest

from sparecode_node.services.access.security_log import MALFORMED
from sparecode_node.web.messages import Messages
from tests.http.door import AGENT, HOST, Door, trusting

ROUTE = b"POST /v1/authenticate HTTP/1.1\r\nhost: x\r\n"
JSON = b"content-type: application/json\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
SECOND = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n"

AMBIGUOUS = {
    "two lengths": ROUTE + CHUNKED + b"content-length: 5\r\n\r\n0\r\n\r\n",
    "two lengths, turned": ROUTE
    + b"content-length: 5\r\n"
    + CHUNKED
    + b"\r\n0\r\n\r\n",
    "other letters": ROUTE
    + b"Content-LENGTH: 5\r\nTransfer-ENCODING: Chunked\r\n\r\n0\r\n\r\n",
    "a version without chunks": ROUTE.replace(b"1.1", b"1.0")
    + CHUNKED
    + b"\r\n0\r\n\r\n",
    "bare LF after a header": ROUTE + b"x: y\nz: w\r\n\r\n",
    "bare LF after the request line": b"GET /nothing HTTP/1.1\nhost: x\r\n\r\n",
    "bare LF everywhere": SECOND.replace(b"\r\n", b"\n"),
    "bare LF before the empty line": b"GET /nothing HTTP/1.1\r\nhost: x\n\r\n",
    "a bare LF as the empty line": b"GET /nothing HTTP/1.1\r\nhost: x\r\n\n",
    "a bare LF before a request": b"\n" + SECOND,
    "bare LF after the last chunk": ROUTE + JSON + CHUNKED + b"\r\n0\r\n\n",
    "bare LF in a trailer": ROUTE + JSON + CHUNKED + b"\r\n0\r\nx: y\n\r\n",
    "bare LF after a chunk's length": ROUTE + JSON + CHUNKED + b"\r\n1\na\r\n0\r\n\r\n",
    "bare LF in pieces": ROUTE + b"x: y\n",
}
PLAIN = {
    "a length": ROUTE + JSON + b"content-length: 3\r\n\r\n{\n}",
    "chunks": ROUTE + JSON + CHUNKED + b"\r\n3\r\n{\n}\r\n0\r\n\r\n",
    "a trailer": ROUTE + JSON + CHUNKED + b"\r\n3\r\n{\n}\r\n0\r\nx: y\r\n\r\n",
}


async def answers(door: Door, data: bytes) -> bytes:
    """Send raw bytes, and return all answers until the node closes the connection."""
    reader, writer = await asyncio.open_connection(
        HOST, door.server.port, ssl=trusting(door.folder, AGENT)
    )
    writer.write(data)
    came = b""
    async with asyncio.timeout(60):
        with contextlib.suppress(OSError):
            came = await reader.read()
    writer.close()
    return came


@pytest.mark.asyncio
@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_a_request_with_two_readings_is_refused_and_ends_the_connection(
    door: Door, name: str
) -> None:
    """Its connection, too: where the next request begins is what is not known."""
    came = await answers(door, AMBIGUOUS[name] + SECOND)
    assert came.count(b"HTTP/1.1 ") == 1, came
    assert came.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in came.lower()
    assert door.node.refusals.log.counts[MALFORMED] == 1
    assert {each.code for each in door.ended} <= {"CANCELLED"}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", PLAIN)
async def test_a_request_with_one_reading_is_judged(door: Door, name: str) -> None:
    """A bare LF in a body is data; both requests of the connection have an answer."""
    last = SECOND.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    came = await answers(door, PLAIN[name] + last)
    assert came.count(b"HTTP/1.1 ") == 2, came
    assert came.count(b"HTTP/1.1 404 ") == 1
    assert door.node.refusals.log.counts[MALFORMED] == 0


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_bytes_that_arrive_one_by_one_are_refused_alike(name: str) -> None:
    """No boundary between packets hides a bare LF."""
    with pytest.raises(h11.RemoteProtocolError):
        read_one_by_one(AMBIGUOUS[name])


def read_one_by_one(data: bytes) -> None:
    messages = Messages(head_bytes_max=16 * 1024)
    for byte in data:
        messages.receive_data(bytes([byte]))
        while messages.next_event() is not h11.NEED_DATA:
            pass

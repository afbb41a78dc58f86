# SPDX-License-Identifier: Apache-2.0
"""What the RADIUS and HTTP clients of a campaign take for an answer."""

import asyncio
import uuid
from collections import defaultdict, deque
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pyrad.packet import AccessAccept, AccessReject, AuthPacket

from tests.faults import protocols
from tests.faults.protocols import NoAnswerError, Protocols, goes_by_radius
from tests.radius.door import request

pytestmark = pytest.mark.asyncio

SECRET = "shared"
HOST = "127.0.0.1"
WITHIN = timedelta(seconds=10)


class Server(asyncio.DatagramProtocol):
    """Answers every second packet alike."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.code, self.message = AccessAccept, b""
        self.first: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.packets.append(data)
        if self.first:
            for reply in self.first:
                self.transport.sendto(reply, addr)
        elif len(self.packets) % 2 == 0:
            self.transport.sendto(self.answer(data), addr)

    def answer(self, request: bytes) -> bytes:
        reply = AuthPacket(packet=request, secret=SECRET.encode()).CreateReply()
        reply.code = self.code
        if self.message:
            reply[protocols.REPLY_MESSAGE] = [self.message]
        return bytes(reply.ReplyPacket())


def clients(monkeypatch: pytest.MonkeyPatch) -> Protocols:
    """Return clients of three nodes, without files."""
    monkeypatch.setattr(
        protocols.ssl,
        "create_default_context",
        lambda **_: SimpleNamespace(load_cert_chain=lambda *_: None),
    )
    monkeypatch.setattr(protocols.httpx, "AsyncClient", lambda **_: None)
    nodes = [
        SimpleNamespace(directory=Path(name), agents_address=f"{HOST}:7300")
        for name in ("n1", "n2", "n3")
    ]
    made = Protocols(
        SimpleNamespace(nodes=nodes, members_ca="", certificates=Path("x"))  # type: ignore[arg-type]
    )
    made._secret = SECRET
    return made


async def test_a_radius_client_repeats_the_same_packet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(D3) In a retry, too: it follows from the request id."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        Server, local_addr=(HOST, 0)
    )
    monkeypatch.setattr(
        protocols, "RADIUS_PORT", transport.get_extra_info("sockname")[1]
    )
    monkeypatch.setattr(protocols, "REPEAT_S", 0.05)
    made, request_id = clients(monkeypatch), str(uuid.uuid4())

    async def ask(**changes: str) -> bool:
        named = {"username": "alice", "passcode": "1", "request_id": request_id}
        return await made.by_radius(
            **{**named, **changes}, hosts=[HOST, HOST], within=WITHIN
        )

    assert await ask()
    assert await ask()
    assert len(server.packets) == 4
    assert len(set(server.packets)) == 1
    assert await ask(request_id=str(uuid.uuid4()))
    assert len(set(server.packets)) == 2
    server.code = AccessReject
    assert not await ask()
    server.message = b"Too many tries. Wait"
    with pytest.raises(NoAnswerError) as error:
        await ask()
    assert error.value.unknown  # The first copy may have been decided.
    transport.close()


async def test_a_late_reply_to_a_port_of_another_request_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(RFC 2865, section 4.2) One that is signed for no request fails the campaign."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        Server, local_addr=(HOST, 0)
    )
    monkeypatch.setattr(
        protocols, "RADIUS_PORT", transport.get_extra_info("sockname")[1]
    )
    made = clients(monkeypatch)
    server.code = AccessReject
    late, ours = (
        request(SECRET, identifier=number, authenticator=bytes([number]) * 16)
        for number in (1, 2)
    )
    late_reply = server.answer(late)
    server.code = AccessAccept
    server.first = [late_reply, server.answer(ours)]
    earlier = deque([late])
    made._sent = defaultdict(lambda: earlier)
    answer = await made._ask(HOST, ours, WITHIN.total_seconds())
    assert answer is not None
    assert answer.code == AccessAccept
    earlier.clear()
    server.first = [late_reply]
    with pytest.raises(ValueError, match="signed for no request"):
        await made._ask(HOST, ours, WITHIN.total_seconds())
    transport.close()


@pytest.mark.parametrize(
    ("status", "reason", "unknown"),
    [
        (503, "NO_QUORUM", False),
        (429, "RATE", False),
        (503, "OUTCOME_UNKNOWN", True),
        (500, "INTERNAL", True),
        (504, "DEADLINE_EXCEEDED", True),
    ],
)
async def test_an_error_by_http_means_what_it_says(
    monkeypatch: pytest.MonkeyPatch, status: int, reason: str, *, unknown: bool
) -> None:
    made = clients(monkeypatch)
    monkeypatch.undo()
    made._http = httpx.AsyncClient(
        transport=httpx.MockTransport(
            lambda _: httpx.Response(status, json={"reason": reason})
        )
    )
    with pytest.raises(NoAnswerError) as error:
        await made.by_http(
            "alice", "1", request_id=str(uuid.uuid4()), hosts=[HOST], within=WITHIN
        )
    assert error.value.unknown is unknown
    assert reason in error.value.words


async def test_a_request_and_its_retries_stay_with_radius() -> None:
    chosen = [goes_by_radius(str(uuid.UUID(int=number))) for number in range(8)]
    assert chosen == [True, False, False, False] * 2

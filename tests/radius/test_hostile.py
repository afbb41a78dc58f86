# SPDX-License-Identifier: Apache-2.0
"""Every length and kind of attribute changed, with a valid signature and without (D2)."""

import asyncio
import hmac
import itertools
from collections.abc import Iterator

import pytest

from sparecode_node.radius import duplicates, packets
from tests.radius.door import Door, answered, request, update

pytestmark = pytest.mark.asyncio

ATTRIBUTES = (
    (packets.NAS_IP_ADDRESS, bytes(4)),
    (packets.NAS_PORT, bytes(4)),
    (packets.STATE, b"s" * 30),
    (packets.VENDOR_SPECIFIC, bytes(4) + b"\x01\x06abcd"),
    (packets.CALLING_STATION_ID, b"station"),
    (packets.NAS_IDENTIFIER, b"nas"),
    (packets.PROXY_STATE, b"proxy"),
    (packets.ACCT_SESSION_ID, b"session"),
    (packets.EAP_MESSAGE, b"\x02\x01\x00\x05\x01"),
    (packets.NAS_IPV6_ADDRESS, bytes(16)),
)
KINDS = (0, 1, 2, 3, 24, 26, 33, 79, 80, 255)
LENGTHS = (0, 1, 2, 3, 17, 18, 19, 255)


class Sink:
    """Where answers go."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendto(self, datagram: bytes, _address: object) -> None:
        """Keep an answer."""
        self.sent.append(datagram)

    def is_closing(self) -> bool:
        """Return whether it is closed: never."""
        return False


def starts(packet: bytes) -> Iterator[int]:
    """Yield where each attribute starts."""
    at = packets.HEADER_BYTES
    while at < len(packet):
        yield at
        at += packet[at + 1]


def hostile(sent: bytes) -> Iterator[bytearray]:
    """Yield packets with one octet of their form changed, and with pieces left out."""
    for length in (0, 19, 20, 21, len(sent) - 1, len(sent) + 1, 4096, 4097, 65535):
        changed = bytearray(sent)
        changed[2:4] = length.to_bytes(2)
        yield changed
    for at in starts(sent):
        for offset, values in ((0, KINDS), (1, LENGTHS)):
            for value in values:
                changed = bytearray(sent)
                changed[at + offset] = value
                yield changed
        end = at + sent[at + 1]
        for changed in (
            bytearray(sent[:at] + sent[end:]),
            bytearray(sent[:end] + sent[at:]),
        ):
            changed[2:4] = len(changed).to_bytes(2)
            yield changed


def signed(packet: bytearray, secret: str) -> bytes:
    """Sign a packet again, if its Message-Authenticator is where it was."""
    at = packets.HEADER_BYTES
    if packet[at : at + 2] != bytes([packets.MESSAGE_AUTHENTICATOR, 18]):
        return bytes(packet)
    packet[at + 2 : at + 18] = bytes(16)
    length = int.from_bytes(packet[2:4])
    octets = packet[: min(length, len(packet))]
    packet[at + 2 : at + 18] = hmac.digest(secret.encode(), octets, "md5")
    return bytes(packet)


async def settle(door: Door) -> None:
    """Wait until every request is answered."""
    while door.listener.exchange._tasks:
        await asyncio.gather(*door.listener.exchange._tasks)


@pytest.mark.parametrize("allows_unsigned", [False, True], ids=["strict", "lax"])
async def test_every_changed_length_and_kind_is_dropped_or_answered(
    door, caplog, allows_unsigned
):
    """Each is counted once, none is a bug, and nothing of them stays in memory."""
    if allows_unsigned:
        await update(door, allow_unsigned=True, allow_unsigned_proxied=True)
    sent = request(door.secret, password="4711123456", attributes=ATTRIBUTES)
    sink, number = Sink(), 0
    for changed in hostile(sent):
        for packet in (bytes(changed), signed(bytearray(changed), door.secret)):
            door.listener.received(packet, ("127.0.0.1", 4000), sink)
            number += 1
            if number % 32 == 0:
                await settle(door)
                door.node.clock.pass_s(60)
    await settle(door)
    assert sum(door.counts.packets().values()) == number
    assert door.counted("malformed") > number / 10
    assert len(sink.sent) > 0
    assert "radius_failed" not in caplog.text
    exchange = door.listener.exchange
    assert not exchange._in_progress
    assert not exchange._duplicates._in_progress
    assert len(exchange._duplicates._answers) <= duplicates.ANSWERS_MAX
    door.node.clock.pass_s(60)
    assert await answered(door, request(door.secret, password="1" * 10)) == 3


async def test_a_flood_of_answers_takes_bounded_memory(door, monkeypatch):
    """(D3) The oldest answer goes first; its copy is then answered from the state."""
    monkeypatch.setattr(duplicates, "ANSWERS_MAX", 8)
    sink = Sink()
    for number in range(32):
        sent = request(door.secret, f"user-{number}", "1" * 10)
        door.listener.received(sent, ("127.0.0.1", 4000), sink)
        await settle(door)
    assert len(door.listener.exchange._duplicates._answers) == 8
    assert len(sink.sent) == 32


async def test_packets_of_strangers_are_counted_together(door):
    """A flood from many addresses adds no name to the metrics."""
    sent = request(door.secret, password="1" * 10)
    for first, second in itertools.product(range(1, 9), range(8)):
        host = f"10.0.{first}.{second}"
        door.listener.received(sent, (host, 4000), Sink())
    assert door.counts.packets() == {("", "unknown_client"): 64}

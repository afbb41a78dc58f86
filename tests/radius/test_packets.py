# SPDX-License-Identifier: Apache-2.0
"""Hostile packets: whatever their octets, they are read or dropped (D2)."""

import contextlib
import struct
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparecode_node.domain.caller_addresses import canonical
from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.ids import (
    AgentIdentity,
    Moment,
    NameKey,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.radius import RadiusSettings
from sparecode_node.radius import packets
from sparecode_node.radius.answers import challenged
from sparecode_node.radius.packets import DroppedError, PasswordFormError
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.radius_seals import (
    NEW_PIN_MAX,
    STATE_MAX,
    RadiusSeals,
    RadiusState,
)
from sparecode_node.services.secrets.sealing import BrokenSealError
from tests.radius.door import request

SECRET = "a secret of thirty-two characters"
STRICT = RadiusSettings(networks=("0.0.0.0/0",))
LAX = RadiusSettings(
    networks=("0.0.0.0/0",), allow_unsigned=True, allow_unsigned_proxied=True
)
SENT = request(
    SECRET,
    password="4711123456",
    attributes=[
        (packets.STATE, b"s" * 40),
        (packets.PROXY_STATE, b"p"),
        (packets.VENDOR_SPECIFIC, struct.pack("!IBB", 9, 1, 6) + b"abcd"),
    ],
)


def verdict(datagram: bytes, settings_: RadiusSettings = STRICT) -> str:
    """Return why a datagram is dropped; empty if it is read."""
    try:
        read = packets.read(datagram, settings_, [SECRET.encode()])
    except DroppedError as error:
        return error.verdict
    with contextlib.suppress(PasswordFormError):
        read.password()
    packets.reply(read, 3, ())
    return ""


def with_length(datagram: bytes, length: int) -> bytes:
    return datagram[:2] + struct.pack("!H", length) + datagram[4:]


def test_padding_after_the_packet_is_ignored():
    """RFC 2865, section 3."""
    assert verdict(SENT + bytes(100)) == ""


@pytest.mark.parametrize("size", range(len(SENT)))
def test_a_cut_packet_is_dropped(size):
    """Also if its length is corrected: pyrad alone would cut the last attribute."""
    assert verdict(SENT[:size]) == "malformed"
    assert verdict(with_length(SENT[:size], size)[:size]) != "" or size == len(SENT)


def test_an_attribute_longer_than_the_packet_is_dropped_unsigned_too():
    unsigned = request(SECRET, password="1", signed=False)
    assert verdict(unsigned, LAX) == ""
    longer = bytearray(unsigned)
    longer[-17] += 1  # The length of User-Password.
    assert verdict(bytes(longer), LAX) == "malformed"


@pytest.mark.parametrize("length", [0, 1, 19, 4097, 8192, 65535])
def test_lengths_beyond_the_bounds_are_dropped(length):
    assert verdict(with_length(SENT.ljust(9000, b"\0"), length)) == "malformed"


@pytest.mark.parametrize("kind", packets.ONCE)
def test_an_attribute_that_comes_twice_is_dropped(kind):
    twice = SENT + 2 * (struct.pack("!BB", kind, 18) + bytes(16))
    assert verdict(with_length(twice, len(twice))) == "malformed"


def test_a_signature_of_another_length_is_dropped():
    unsigned = request(SECRET, password="1", signed=False)
    short = unsigned + struct.pack("!BB", packets.MESSAGE_AUTHENTICATOR, 2)
    assert verdict(with_length(short, len(short)), LAX) == "malformed"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_no_octets_raise_anything_else(octets):
    assert verdict(octets) != ""
    verdict(SENT[:20] + octets, LAX)
    verdict(with_length(SENT[:20] + octets, 20 + len(octets)), LAX)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!BB", kind, 2 + len(value)) + value


def with_attributes(datagram: bytes, *more: bytes) -> bytes:
    longer = b"".join((datagram, *more))
    return with_length(longer, len(longer))


def test_the_signature_is_checked_before_the_attributes_are_decoded(monkeypatch):
    """A sender without the secret costs one MAC, however many attributes it sends."""

    def decode(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(packets, "AuthPacket", decode)
    forged = with_attributes(SENT, *[attribute(25, b"")] * 150)
    assert verdict(forged) == "wrong_secret"


@pytest.mark.parametrize(
    ("number", "expected"), [(200, "wrong_secret"), (201, "malformed")]
)
def test_a_packet_has_at_most_200_attributes(number, expected):
    """As in FreeRADIUS. The empty ones that fit into a packet are ten times as many."""
    has = 6
    many = with_attributes(SENT, *[attribute(25, b"")] * (number - has))
    assert verdict(many) == expected


def test_the_largest_reply_fits():
    """Otherwise a code would be spent, and its answer could not be sent."""
    most = [(packets.PROXY_STATE, b"p" * 251)] * 14
    sent = request(SECRET, password="1", attributes=most)
    assert sum(2 + len(value) for _, value in most) == packets.PROXY_STATES_MAX
    read = packets.read(sent, STRICT, [SECRET.encode()])
    texts = [
        (packets.FILTER_ID, b"f" * 253),
        (packets.CLASS, b"c" * 253),
        (packets.SESSION_TIMEOUT, bytes(4)),
    ]
    assert len(packets.reply(read, 2, texts)) == packets.PACKET_MAX
    assert verdict(request(SECRET, attributes=[*most, (packets.PROXY_STATE, b"")])) == (
        "malformed"
    )


@pytest.mark.parametrize("blocks", [1, 2, 8])
def test_a_password_may_be_filled_up_with_several_blocks(blocks):
    """RFC 2865, section 5.2 bounds the padding at 128 octets."""
    padded = b"4711".ljust(16 * blocks, b"\0")
    read = packets.read(request(SECRET, password=padded), STRICT, [SECRET.encode()])
    assert read.password() == "4711"


@pytest.mark.parametrize("at", range(16))
def test_no_password_of_an_unsigned_request_makes_a_node_silent(at):
    """Its octets may be changed by anyone: silence would tell what they were."""
    sent = request(SECRET, password="4711123456", signed=False)
    start = len(sent) - 16
    for change in (0x01, 0x4E, 0x80, 0xFF):
        changed = bytearray(sent)
        changed[start + at] ^= change
        assert verdict(bytes(changed), LAX) == ""


def test_an_unsigned_request_under_another_secret_is_garbled():
    sent = request("another", password="4711123456", signed=False)
    assert packets.read(sent, LAX, [SECRET.encode()]).is_garbled
    read = packets.read(sent, LAX, [SECRET.encode(), b"another"])
    assert not read.is_garbled
    assert read.password() == "4711123456"


def test_a_message_is_cut_between_characters():
    """RFC 2865, section 5.18: UTF-8 text."""
    (_, message), *_ = challenged("a" + "é" * 200, b"", echo=True).attributes
    assert message.decode() == "a" + "é" * 126


@pytest.mark.parametrize(
    ("host", "spelling"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:207", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
    ],
)
def test_an_address_has_one_spelling(host, spelling):
    assert canonical(host) == spelling


PIECES = [SENT[20:22], b"", b"\x50\x12", b"\x02\x12", b"\x21\x03p"] + [
    SENT[at : at + 8] for at in range(20, len(SENT), 8)
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.integers(20, len(SENT)), st.integers(0, 40), st.sampled_from(PIECES)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_attributes_cut_doubled_and_moved_are_read_or_dropped(changes):
    """Several changes of any length; nothing but the signed octets is ever accepted."""
    changed = SENT
    for at, size, piece in changes:
        changed = changed[:at] + piece + changed[at + size :]
    changed = with_length(changed, len(changed))
    assert changed == SENT or verdict(changed) != ""
    verdict(changed, LAX)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, len(SENT) - 1), st.integers(1, 255))
def test_a_changed_octet_is_never_accepted(at, change):
    changed = bytearray(SENT)
    changed[at] ^= change
    assert verdict(bytes(changed)) != ""


def test_the_largest_state_fits():
    """RFC 2865, section 5.24: the longest serial, PIN and numbers."""
    seals = RadiusSeals(KeyRing.draw(SystemEntropy()))
    state = RadiusState(
        challenge=Challenge(
            challenge_id=str(uuid.uuid4()),
            step=NextStep.NEW_PIN,
            agent=AgentIdentity("radius:" + "n" * 64),
            user_id=UserId(str(uuid.uuid4())),
            auth_version=10**9,
            serial=TokenSerial("9" * 64),
            moment=Moment(10**12),
            ends_at_ms=10**13,
        ),
        name_key=NameKey("n" * 128),
        new_pin="P" * NEW_PIN_MAX,
        repeated=True,
    )
    sealed = seals.seal_state(state)
    assert len(sealed) <= STATE_MAX
    agent, name = state.challenge.agent, state.name_key
    assert seals.unseal_state(sealed, agent, name) == state
    with pytest.raises(BrokenSealError):
        seals.unseal_state(sealed, AgentIdentity("radius:another"), name)
    with pytest.raises(BrokenSealError):
        seals.unseal_state(sealed, agent, NameKey("another"))

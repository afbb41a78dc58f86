# SPDX-License-Identifier: Apache-2.0
"""Hostile packets: whatever their octets, they are read or dropped (D2)."""

import contextlib
import struct
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.ids import AgentIdentity, Moment, TokenSerial, UserId
from sparecode_node.domain.radius import RadiusSettings
from sparecode_node.radius import packets
from sparecode_node.radius.dialog import NEW_PIN_MAX
from sparecode_node.radius.packets import DroppedError, PasswordFormError
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.radius_seals import (
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
        new_pin="P" * NEW_PIN_MAX,
        repeated=True,
    )
    sealed = seals.seal_state(state)
    assert len(sealed) <= STATE_MAX
    assert seals.unseal_state(sealed, state.challenge.agent) == state
    with pytest.raises(BrokenSealError):
        seals.unseal_state(sealed, AgentIdentity("radius:another"))

# SPDX-License-Identifier: Apache-2.0
"""Seals, verifiers and tags: bound to what they belong to (T3, I3, Q1)."""

import dataclasses

import pytest

from sparecode_node.domain.ids import (
    AdministratorName,
    KeyId,
    NameKey,
    SetId,
    TokenSerial,
    UserId,
)
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.kdf import Secret
from sparecode_node.services.secrets.keyring import KeyRing, UnknownKeyError
from sparecode_node.services.secrets.sealed_values import DeviceCookie, Draft
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing

SERIAL = TokenSerial("000131415926")
SEED = b"a seed of twenty byt"
HASHED = bytes(range(32))
KEY = KeyId(1)
ALICE, BOB = UserId("alice"), UserId("bob")
DRAFT = Draft(
    draft_id="draft",
    administrator=AdministratorName("root"),
    serial=SERIAL,
    user_id=ALICE,
    auth_version=3,
    policy_version=1,
    key_id=KeyId(1),
    set_id=SetId("set"),
    code_length=8,
    ends_at_ms=1000,
    verifiers=(b"one", b"two"),
)


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing.draw(SystemEntropy())


@pytest.fixture
def sealing(ring: KeyRing) -> Sealing:
    return Sealing(ring)


def test_seed_opens_for_its_serial_only(sealing: Sealing) -> None:
    sealed = sealing.seal_seed(SERIAL, SEED, KEY)
    assert SEED not in sealed
    assert sealing.unseal_seed(SERIAL, sealed, KeyId(1)) == SEED
    with pytest.raises(BrokenSealError):
        sealing.unseal_seed(TokenSerial("2"), sealed, KeyId(1))
    with pytest.raises(BrokenSealError):
        sealing.unseal_seed(SERIAL, sealed[:-1] + bytes([sealed[-1] ^ 1]), KeyId(1))
    with pytest.raises(BrokenSealError):
        sealing.unseal_seed(SERIAL, b"", KeyId(1))
    with pytest.raises(UnknownKeyError):
        sealing.unseal_seed(SERIAL, sealed, KeyId(2))


def test_verifier_belongs_to_one_purpose_user_and_row(sealing: Sealing) -> None:
    """(T3) Copied to another row, user or purpose, it matches nothing."""
    verifiers = [
        sealing.pin_verifier(HASHED, ALICE, SERIAL, KEY),
        sealing.pin_verifier(HASHED, BOB, SERIAL, KEY),
        sealing.pin_verifier(HASHED, ALICE, TokenSerial("2"), KEY),
        sealing.code_verifier(HASHED, ALICE, SetId(SERIAL), KEY),
        sealing.code_verifier(HASHED, ALICE, SetId("set"), KEY),
        sealing.password_verifier(HASHED, AdministratorName("alice"), KEY),
        sealing.pin_verifier(bytes(32), ALICE, SERIAL, KEY),
    ]
    assert len(set(verifiers)) == len(verifiers)
    assert verifiers[0] == sealing.pin_verifier(HASHED, ALICE, SERIAL, KEY)
    assert not any(HASHED in verifier for verifier in verifiers)


def test_pin_s_verifier_is_sealed_again_for_another_serial(
    sealing: Sealing, ring: KeyRing
) -> None:
    """(T3) With the ring, without the PIN, and only for the same user."""
    new = TokenSerial("2")
    verifier = sealing.pin_verifier(HASHED, ALICE, SERIAL, KEY)

    def rebound(user: UserId = ALICE, old: TokenSerial = SERIAL, key: int = 1) -> bytes:
        return sealing.rebound_pin_verifier(
            verifier, KeyId(key), user, old=old, new=new, new_key=KEY
        )

    assert rebound() == sealing.pin_verifier(HASHED, ALICE, new, KEY)
    assert rebound() != verifier
    with pytest.raises(BrokenSealError, match="pin of bob, 000131415926 does not open"):
        rebound(user=BOB)
    with pytest.raises(BrokenSealError):
        rebound(old=new)
    with pytest.raises(UnknownKeyError):
        rebound(key=2)
    other = Sealing(KeyRing.draw(SystemEntropy()))
    with pytest.raises(BrokenSealError):
        other.rebound_pin_verifier(
            verifier, KeyId(1), ALICE, old=SERIAL, new=new, new_key=KEY
        )


def test_verifier_needs_the_ring(sealing: Sealing) -> None:
    """(T3) The database alone is no oracle: the ring is the pepper."""
    other = Sealing(KeyRing.draw(SystemEntropy()))
    assert sealing.pin_verifier(HASHED, ALICE, SERIAL, KEY) != other.pin_verifier(
        HASHED, ALICE, SERIAL, KEY
    )


def test_draft_opens_on_every_node_of_the_cluster(
    sealing: Sealing, ring: KeyRing
) -> None:
    """(I3)."""
    assert Sealing(ring).unseal_draft(sealing.seal_draft(DRAFT)) == DRAFT


def test_forged_draft_does_not_open(sealing: Sealing) -> None:
    sealed = sealing.seal_draft(DRAFT)
    foreign = Sealing(KeyRing.draw(SystemEntropy())).seal_draft(DRAFT)
    forged = [
        b"",
        b"\x01",
        b"\x02" + sealed[1:],
        sealed[:-1],
        sealed + b"x",
        sealed[:10] + bytes([sealed[10] ^ 1]) + sealed[11:],
        b"\x01\x00\x00\x00\x02" + sealed[5:],
        foreign,
        b"\x01\x00\x00\x00\x01" + sealing.seal_seed(SERIAL, SEED, KEY),
    ]
    for each in forged:
        with pytest.raises(BrokenSealError, match="draft"):
            sealing.unseal_draft(each)


def test_name_tags_are_keyed(sealing: Sealing) -> None:
    """(A6) An unknown name is stored as its tag, because it may be a PIN."""
    other = Sealing(KeyRing.draw(SystemEntropy()))
    tag = sealing.name_tag(NameKey("alice"), KEY)
    assert tag == sealing.name_tag(NameKey("alice"), KEY)
    assert tag != sealing.name_tag(NameKey("bob"), KEY)
    assert tag != other.name_tag(NameKey("alice"), KEY)
    assert len(tag) == 32


def test_unknown_name_has_always_the_same_salts(sealing: Sealing) -> None:
    """(A6)."""
    tag = sealing.name_tag(NameKey("nobody"), KEY)
    pin = sealing.unknown_name_salt(Secret.PIN, tag)
    code = sealing.unknown_name_salt(Secret.CODE, tag)
    assert pin == sealing.unknown_name_salt(Secret.PIN, tag)
    assert len({pin, code}) == 2
    assert len(pin) == len(code) == 16


@pytest.mark.parametrize(
    ("method", "content"), [("A/Other", b"content"), ("A/Authenticate", b"contenT")]
)
def test_request_tag_covers_method_and_content(
    sealing: Sealing, method: str, content: bytes
) -> None:
    """(Q1)."""
    tag = sealing.request_tags("A/Authenticate", b"content")
    assert tag == sealing.request_tags("A/Authenticate", b"content")
    assert len(tag) == 1
    assert 0 <= tag[0] < 2**32
    assert sealing.request_tags(method, content) != tag


def test_draft_does_not_show_its_verifiers() -> None:
    assert "one" not in repr(dataclasses.replace(DRAFT, verifiers=(b"one",)))


def test_a_device_cookie_opens_in_its_cluster_alone(
    ring: KeyRing, sealing: Sealing
) -> None:
    """(L7, E1) Not in a restored cluster, and not under a key that is gone."""
    cookie = DeviceCookie(
        administrator=AdministratorName("root"),
        device="d1",
        credential="c1",
        made_at_ms=1,
    )
    sealed = sealing.seal_device_cookie(cookie)
    assert sealing.unseal_device_cookie(sealed) == cookie
    for other in (ring.for_cluster("restored"), KeyRing.draw(SystemEntropy())):
        with pytest.raises(BrokenSealError):
            Sealing(other).unseal_device_cookie(sealed)
    with pytest.raises(BrokenSealError):
        sealing.unseal_draft(sealed)

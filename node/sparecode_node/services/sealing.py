# SPDX-License-Identifier: Apache-2.0
"""
Nothing secret enters the log in clear: seals, verifiers and keyed tags.

Everything sealed is AES-SIV (RFC 5297) under a subkey of the ring for its
purpose. What it belongs to is associated data: a seal that is moved to another
row does not open. AES-SIV is deterministic, so a verifier can be compared.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.ids import (
    AdministratorName,
    KeyId,
    NameKey,
    RequestId,
    SessionId,
    SetId,
    TokenSerial,
    UserId,
)
from sparecode_node.services.kdf import SALT_BYTES, Secret
from sparecode_node.services.keyring import KeyRing, UnknownKeyError

SEED: Final = "seed"
PIN: Final = "pin"
VERIFIER: Final = "verifier"
DRAFT: Final = "draft"
CHALLENGE: Final = "challenge"
NAME_TAG: Final = "name-tag"
UNKNOWN_NAME: Final = "unknown-name"
REQUEST_TAG: Final = "request-tag"
SESSION: Final = "session"
CHECKPOINT: Final = "audit-checkpoint"

TAG_BYTES = 4
FORM = b"\x01"
"""Of drafts and challenges: the first byte, before the id of the key."""
KEY_ID_BYTES = 4
ED25519_SEED_BYTES = 32
PIN_BYTES = 16
"""Of a sealed PIN, filled up: its length is nobody's business."""

FieldValue = str | bytes | int | bool | None


class BrokenSealError(Exception):
    """It was not sealed here, not for this, or not as it is now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a generated set is saved from (I3). Holds verifiers, never codes."""

    draft_id: str
    administrator: AdministratorName
    serial: TokenSerial
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    set_id: SetId
    code_length: int
    ends_at_ms: int
    verifiers: tuple[bytes, ...] = field(repr=False)


class Sealing:
    """Seals, verifies and tags with the cluster's key ring."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    @property
    def active_key(self) -> KeyId:
        """The key that new things are made with."""
        return self._ring.active

    @property
    def cluster_id(self) -> str:
        """The cluster that the ring belongs to."""
        return self._ring.cluster_id

    def seal_seed(self, serial: TokenSerial, seed: bytes) -> bytes:
        """Seal a token's seed with the active key."""
        return self._cipher(self._ring.active, SEED).encrypt(
            seed, [SEED.encode(), serial.encode()]
        )

    def unseal_seed(self, serial: TokenSerial, sealed: bytes, key_id: KeyId) -> bytes:
        """Return the seed. Raises `BrokenSealError` and `UnknownKeyError`."""
        try:
            return self._cipher(key_id, SEED).decrypt(
                sealed, [SEED.encode(), serial.encode()]
            )
        except (InvalidTag, ValueError):
            raise BrokenSealError(f"the seed of {serial} does not open") from None

    def seal_pin(self, user: UserId, serial: TokenSerial, pin: str) -> bytes:
        """Seal a PIN that is folded into tokencodes: a verifier alone cannot be (T3)."""
        return self._cipher(self._ring.active, PIN).encrypt(
            pin.encode().ljust(PIN_BYTES),
            [PIN.encode(), user.encode(), serial.encode()],
        )

    def unseal_pin(
        self, user: UserId, serial: TokenSerial, sealed: bytes, key_id: KeyId
    ) -> str:
        """Return a sealed PIN. Raises `BrokenSealError` and `UnknownKeyError`."""
        try:
            return (
                self._cipher(key_id, PIN)
                .decrypt(sealed, [PIN.encode(), user.encode(), serial.encode()])
                .decode()
                .rstrip()
            )
        except (InvalidTag, ValueError):
            raise BrokenSealError(f"the PIN of {serial} does not open") from None

    def pin_verifier(self, hashed: bytes, user: UserId, serial: TokenSerial) -> bytes:
        """Return what the PIN of this user for this token compares as (T3)."""
        return self._verifier(hashed, Secret.PIN, user, serial)

    def rebound_pin_verifier(
        self,
        verifier: bytes,
        key_id: KeyId,
        user: UserId,
        *,
        old: TokenSerial,
        new: TokenSerial,
    ) -> bytes:
        """
        Return what the user's PIN for *old* compares as for *new* (T3).

        The hash under the seal depends on user and PIN alone; the serial is in
        the seal. So any member can seal it anew, without the PIN, and nobody
        without the ring can move a verifier to another token. Raises
        `BrokenSealError` and `UnknownKeyError`.
        """
        purpose = f"{VERIFIER}/{Secret.PIN.value}"
        associated = [Secret.PIN.value.encode(), user.encode(), old.encode()]
        try:
            hashed = self._cipher(key_id, purpose).decrypt(verifier, associated)
        except (InvalidTag, ValueError):
            raise BrokenSealError(f"the PIN of {old} does not open") from None
        return self.pin_verifier(hashed, user, new)

    def code_verifier(self, hashed: bytes, user: UserId, set_id: SetId) -> bytes:
        """Return what a code of this user in this set compares as (T3)."""
        return self._verifier(hashed, Secret.CODE, user, set_id)

    def password_verifier(self, hashed: bytes, name: AdministratorName) -> bytes:
        """Return what the password of this administrator compares as (T3)."""
        return self._verifier(hashed, Secret.PASSWORD, name)

    def seal_draft(self, draft: Draft) -> bytes:
        """Seal a draft, for any node to open."""
        content = {
            "draft_id": draft.draft_id,
            "administrator": draft.administrator,
            "serial": draft.serial,
            "user_id": draft.user_id,
            "auth_version": draft.auth_version,
            "policy_version": draft.policy_version,
            "key_id": draft.key_id,
            "set_id": draft.set_id,
            "code_length": draft.code_length,
            "ends_at_ms": draft.ends_at_ms,
            "verifiers": [base64.b64encode(each).decode() for each in draft.verifiers],
        }
        return self._seal(DRAFT, content)

    def unseal_draft(self, sealed: bytes) -> Draft:
        """Open a draft. Raises `BrokenSealError`."""
        content = self._unseal(DRAFT, sealed)
        verifiers = tuple(base64.b64decode(each) for each in content.pop("verifiers"))
        return Draft(**content, verifiers=verifiers)

    def seal_challenge(self, challenge: Challenge) -> bytes:
        """Seal a challenge, for any node to open; the same one to the same bytes (Q2)."""
        return self._seal(CHALLENGE, asdict(challenge))

    def unseal_challenge(self, sealed: bytes) -> Challenge:
        """Open a challenge. Raises `BrokenSealError`."""
        content = self._unseal(CHALLENGE, sealed)
        return Challenge(**{**content, "step": NextStep(content["step"])})

    def name_tag(self, key: NameKey) -> bytes:
        """Return the keyed hash by which authentication finds a user (A6)."""
        return self._mac(NAME_TAG, key.encode(errors="replace"))

    def unknown_name_salt(self, secret: Secret, tag: bytes) -> bytes:
        """Return the salt of a user who does not exist: always the same (A6)."""
        return self._mac(UNKNOWN_NAME, _canonical((secret.value, tag)))[:SALT_BYTES]

    def request_tag(self, method: str, fields: Mapping[str, FieldValue]) -> int:
        """
        Return the tag of a request's content (Q1).

        32 bits only: enough to notice another request under the same id, too
        short to find out a PIN or a code from it.
        """
        parts: list[FieldValue] = [method]
        for name in sorted(fields):
            parts += [name, fields[name]]
        return int.from_bytes(self._mac(REQUEST_TAG, _canonical(parts))[:TAG_BYTES])

    def bearer(
        self, name: AdministratorName, request_id: RequestId, candidate: bytes
    ) -> str:
        """
        Return the bearer token of the session that a sign-in opens.

        Derived and not drawn, so that a retry gets the same session on whichever
        node. To guess it takes the ring's key; the password is in it as well, so
        that a request id without the password leads nowhere.
        """
        mac = self._mac(SESSION, _canonical((name, request_id, candidate)))
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")

    def checkpoint_key(self) -> tuple[KeyId, Ed25519PrivateKey]:
        """Return the key that signs checkpoints of the audit log now (U2)."""
        key_id = self._ring.active
        return key_id, checkpoint_key(self._ring, key_id)

    def _seal(self, purpose: str, content: Mapping[str, object]) -> bytes:
        """Seal what callers keep for us, for this cluster alone."""
        header = FORM + self._ring.active.to_bytes(KEY_ID_BYTES)
        sealed = self._cipher(self._ring.active, purpose).encrypt(
            json.dumps(content).encode(), self._kept(purpose, header)
        )
        return header + sealed

    def _unseal(self, purpose: str, sealed: bytes) -> dict[str, Any]:
        """Return the content. Raises `BrokenSealError`."""
        size = len(FORM) + KEY_ID_BYTES
        header = sealed[:size]
        if len(header) < size or not header.startswith(FORM):
            raise BrokenSealError(f"not a {purpose}")
        try:
            key_id = KeyId(int.from_bytes(header[len(FORM) :]))
            content: dict[str, Any] = json.loads(
                self._cipher(key_id, purpose).decrypt(
                    sealed[size:], self._kept(purpose, header)
                )
            )
        except (InvalidTag, ValueError, UnknownKeyError):
            raise BrokenSealError(f"not a {purpose} of this cluster") from None
        # Whatever opens was sealed by a member: its form needs no checking.
        return content

    def _kept(self, purpose: str, header: bytes) -> list[bytes]:
        """Return what is bound into a seal: after a restore the cluster has a new id (E1)."""
        return [purpose.encode(), header, self._ring.cluster_id.encode()]

    def _verifier(self, hashed: bytes, secret: Secret, *belongs_to: str) -> bytes:
        associated = [secret.value.encode(), *(each.encode() for each in belongs_to)]
        return self._cipher(self._ring.active, f"{VERIFIER}/{secret.value}").encrypt(
            hashed, associated
        )

    def _cipher(self, key_id: KeyId, purpose: str) -> AESSIV:
        return AESSIV(self._ring.subkey(key_id, purpose))

    def _mac(self, purpose: str, message: bytes) -> bytes:
        key = self._ring.subkey(self._ring.active, purpose)
        return hmac.digest(key, message, "sha256")


def checkpoint_key(ring: KeyRing, key_id: KeyId) -> Ed25519PrivateKey:
    """Derive what signs checkpoints: the same on every member. Raises `UnknownKeyError`."""
    seed = ring.subkey(key_id, CHECKPOINT)[:ED25519_SEED_BYTES]
    return Ed25519PrivateKey.from_private_bytes(seed)


def session_id(bearer: str) -> SessionId:
    """Return the name of the bearer's session: its SHA-256. The bearer is not stored."""
    return SessionId(hashlib.sha256(bearer.encode(errors="replace")).hexdigest())


def _canonical(parts: "tuple[FieldValue, ...] | list[FieldValue]") -> bytes:
    """Write *parts* so that no two lists of them look the same."""
    encoded = bytearray()
    for part in parts:
        match part:
            case None:
                kind, content = b"-", b""
            case str():
                kind, content = b"s", part.encode(errors="replace")
            case bytes():
                kind, content = b"b", part
            case int():  # And bool: True and 1 mean the same.
                kind, content = b"i", str(int(part)).encode()
        encoded += kind + len(content).to_bytes(8) + content
    return bytes(encoded)

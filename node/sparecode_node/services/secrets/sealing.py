# SPDX-License-Identifier: Apache-2.0
"""
Nothing secret enters the log in clear: seals, verifiers and keyed tags.

Values are sealed with AES-SIV (RFC 5297) under a subkey of the ring for their purpose.
Their owner is associated data: a seal that is moved to another row does not open.
AES-SIV is deterministic, so verifiers can be compared.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.ids import (
    AdministratorName,
    KeyId,
    NameKey,
    NodeId,
    RequestId,
    SessionId,
    SetId,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.tokencodes import significant
from sparecode_node.services.secrets.kdf import SALT_BYTES, Secret
from sparecode_node.services.secrets.keyring import KeyRing, UnknownKeyError
from sparecode_node.services.secrets.sealed_values import (
    DeviceCookie,
    Draft,
    PasskeyChallenge,
    SecondFactorDraft,
    TokenFileDraft,
)

SEED: Final = "seed"
PIN: Final = "pin"
SECOND_FACTOR: Final = "second-factor"
SECOND_FACTOR_DRAFT: Final = "second-factor-draft"
VERIFIER: Final = "verifier"
DRAFT: Final = "draft"
TOKEN_FILE: Final = "token-file"
CHALLENGE: Final = "challenge"
NAME_TAG: Final = "name-tag"
UNKNOWN_NAME: Final = "unknown-name"
REQUEST_TAG: Final = "request-tag"
JOIN_TICKET: Final = "join-ticket"
DEVICE_COOKIE: Final = "device-cookie"
SEED_FINGERPRINT: Final = "seed-fingerprint"
FORMER_CODE: Final = "former-code"
PASSKEY_CHALLENGE: Final = "passkey-challenge"
DEVICE_CODE: Final = "device-code"
USER_CODE: Final = "user-code"

TAG_BYTES = 4
FORM = b"\x01"
"""The first byte of drafts and challenges, before the id of the key."""
KEY_ID_BYTES = 4
CODE_HASH_BYTES = 4
"""
Of a code's hash in the tag of a former code.

A wrong code is taken for one of a thousand former codes once in four million guesses,
and gains nothing but another try. So few bytes fit hundreds of codes, so
they tell none to a thief of the database and the ring.
"""
CODE_TAG_BYTES = 16 + CODE_HASH_BYTES
"""The size of such a tag: AES-SIV adds 16 bytes."""
PIN_BYTES = 16
"""The size of a sealed PIN. Padding hides the length of the PIN."""
JOIN_SECRET_BYTES = 16

FieldValue = str | bytes | int | bool | None


class BrokenSealError(Exception):
    """The seal was made elsewhere, for something else, or was altered."""


class Sealing:
    """Seals, verifies and tags with the cluster's key ring."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    @property
    def ring(self) -> KeyRing:
        """The cluster's key ring."""
        return self._ring

    @property
    def active_key(self) -> KeyId:
        """The key that new values are sealed with."""
        return self._ring.active

    @property
    def cluster_id(self) -> str:
        """The cluster that the ring belongs to."""
        return self._ring.cluster_id

    @property
    def aging_keys(self) -> tuple[KeyId, ...]:
        """Replaced keys that some values are still sealed with."""
        return self._ring.aging

    def seal_seed(self, serial: TokenSerial, seed: bytes, key_id: KeyId) -> bytes:
        """Seal a token's seed."""
        return self._sealed(key_id, SEED, seed, [SEED, serial])

    def unseal_seed(self, serial: TokenSerial, sealed: bytes, key_id: KeyId) -> bytes:
        """Return the seed. Raises `BrokenSealError` and `UnknownKeyError`."""
        return self._opened(key_id, SEED, sealed, [SEED, serial])

    def seed_fingerprint(self, seed: bytes, key_id: KeyId) -> bytes:
        """Return the keyed hash by which equal seeds are found (K5)."""
        return self._mac(SEED_FINGERPRINT, significant(seed), key_id)

    def seed_fingerprints(self, seed: bytes) -> tuple[tuple[KeyId, bytes], ...]:
        """Return the fingerprints of a seed under all keys in use."""
        keys = (self._ring.active, *self._ring.aging)
        return tuple((each, self.seed_fingerprint(seed, each)) for each in keys)

    def seal_pin(
        self, user: UserId, serial: TokenSerial, pin: str, key_id: KeyId
    ) -> bytes:
        """Seal a PIN that is folded into tokencodes, which a verifier cannot replace (T3)."""
        filled = pin.encode().ljust(PIN_BYTES)
        return self._sealed(key_id, PIN, filled, [PIN, user, serial])

    def unseal_pin(
        self, user: UserId, serial: TokenSerial, sealed: bytes, key_id: KeyId
    ) -> str:
        """Return a sealed PIN. Raises `BrokenSealError` and `UnknownKeyError`."""
        filled = self._opened(key_id, PIN, sealed, [PIN, user, serial])
        return filled.decode().rstrip()

    def pin_verifier(
        self, hashed: bytes, user: UserId, serial: TokenSerial, key_id: KeyId
    ) -> bytes:
        """Return the verifier of this user's PIN for this token (T3)."""
        return self._verifier(hashed, key_id, Secret.PIN, user, serial)

    def rebound_pin_verifier(
        self,
        verifier: bytes,
        key_id: KeyId,
        user: UserId,
        *,
        old: TokenSerial,
        new: TokenSerial,
        new_key: KeyId,
    ) -> bytes:
        """
        Return the verifier for *new* of the user's PIN for *old* (T3).

        The sealed hash depends on user and PIN alone; the serial is bound to the seal.
        So any member can reseal it without the PIN, and a verifier cannot be moved to
        another token without the ring. Raises `BrokenSealError` and
        `UnknownKeyError`.
        """
        hashed = self._hash_in(verifier, key_id, Secret.PIN, user, old)
        return self.pin_verifier(hashed, user, new, new_key)

    def code_verifier(
        self, hashed: bytes, user: UserId, set_id: SetId, key_id: KeyId
    ) -> bytes:
        """Return the verifier of a code of this user in this set (T3)."""
        return self._verifier(hashed, key_id, Secret.CODE, user, set_id)

    def code_tag(self, hashed: bytes, user: UserId, key_id: KeyId) -> bytes:
        """
        Return the tag by which a code of any former set of this user is found (A5).

        It depends on the user alone, so that one tag is compared with all former codes.
        It is a seal, so that it can be sealed again under another key (T3).
        """
        kept = hashed[:CODE_HASH_BYTES]
        return self._sealed(key_id, FORMER_CODE, kept, [FORMER_CODE, user])

    def code_tags(self, hashed: bytes, user: UserId) -> tuple[bytes, ...]:
        """Return the tags of a code under all keys in use."""
        keys = (self._ring.active, *self._ring.aging)
        return tuple(self.code_tag(hashed, user, each) for each in keys)

    def code_tag_of(
        self,
        verifier: bytes,
        user: UserId,
        set_id: SetId,
        *,
        old_key: KeyId,
        new_key: KeyId,
    ) -> bytes:
        """
        Return the tag of the code with this verifier.

        Raises `BrokenSealError` and `UnknownKeyError`.
        """
        hashed = self._hash_in(verifier, old_key, Secret.CODE, user, set_id)
        return self.code_tag(hashed, user, new_key)

    def resealed_code_tags(
        self, tags: bytes, user: UserId, *, old_key: KeyId, new_key: KeyId
    ) -> bytes:
        """
        Return the tags of a former set under another key.

        Raises `BrokenSealError` and `UnknownKeyError`.
        """
        return b"".join(
            self.code_tag(
                self._opened(
                    old_key,
                    FORMER_CODE,
                    tags[start : start + CODE_TAG_BYTES],
                    [FORMER_CODE, user],
                ),
                user,
                new_key,
            )
            for start in range(0, len(tags), CODE_TAG_BYTES)
        )

    def password_verifier(
        self, hashed: bytes, name: AdministratorName, key_id: KeyId
    ) -> bytes:
        """Return the verifier of this administrator's password (T3)."""
        return self._verifier(hashed, key_id, Secret.PASSWORD, name)

    def resealed_verifier(
        self,
        verifier: bytes,
        secret: Secret,
        *belongs_to: str,
        old_key: KeyId,
        new_key: KeyId,
    ) -> bytes:
        """
        Return a verifier under another key, without the PIN, code or password (T3).

        Raises `BrokenSealError` and `UnknownKeyError`.
        """
        hashed = self._hash_in(verifier, old_key, secret, *belongs_to)
        return self._verifier(hashed, new_key, secret, *belongs_to)

    def seal_second_factor(
        self, name: AdministratorName, seed: bytes, key_id: KeyId
    ) -> bytes:
        """Seal the seed of an administrator's second factor."""
        return self._sealed(key_id, SECOND_FACTOR, seed, [SECOND_FACTOR, name])

    def unseal_second_factor(
        self, name: AdministratorName, sealed: bytes, key_id: KeyId
    ) -> bytes:
        """Return the seed. Raises `BrokenSealError` and `UnknownKeyError`."""
        return self._opened(key_id, SECOND_FACTOR, sealed, [SECOND_FACTOR, name])

    def seal_second_factor_draft(self, draft: SecondFactorDraft) -> bytes:
        """Seal a draft of a second factor, for any node to open."""
        content = {**asdict(draft), "seed": base64.b64encode(draft.seed).decode()}
        return self._seal(SECOND_FACTOR_DRAFT, content)

    def unseal_second_factor_draft(self, sealed: bytes) -> SecondFactorDraft:
        """Open a draft of a second factor. Raises `BrokenSealError`."""
        content = self._unseal(SECOND_FACTOR_DRAFT, sealed)
        return SecondFactorDraft(
            **{**content, "seed": base64.b64decode(content["seed"])}
        )

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

    def seal_token_file(self, draft: TokenFileDraft) -> bytes:
        """Seal a file of tokens, for any node to open."""
        return self._seal(TOKEN_FILE, asdict(draft))

    def unseal_token_file(self, sealed: bytes) -> TokenFileDraft:
        """Open a file of tokens. Raises `BrokenSealError`."""
        return TokenFileDraft(**self._unseal(TOKEN_FILE, sealed))

    def seal_challenge(
        self, challenge: Challenge, key_id: KeyId | None = None
    ) -> bytes:
        """Seal a challenge, for any node to open. Equal ones give equal bytes (Q2)."""
        return self._seal(CHALLENGE, asdict(challenge), key_id)

    def unseal_challenge(self, sealed: bytes) -> Challenge:
        """Open a challenge. Raises `BrokenSealError`."""
        content = self._unseal(CHALLENGE, sealed)
        return Challenge(**{**content, "step": NextStep(content["step"])})

    def seal_device_cookie(self, cookie: DeviceCookie) -> bytes:
        """Seal a device cookie, for any node to open. A restored cluster opens none."""
        return self._seal(DEVICE_COOKIE, asdict(cookie))

    def unseal_device_cookie(self, sealed: bytes) -> DeviceCookie:
        """Open a device cookie. Raises `BrokenSealError`."""
        return DeviceCookie(**self._unseal(DEVICE_COOKIE, sealed))

    def seal_passkey_challenge(self, challenge: PasskeyChallenge) -> bytes:
        """Seal a challenge for a passkey, for any node to open."""
        return self._seal(PASSKEY_CHALLENGE, asdict(challenge))

    def unseal_passkey_challenge(self, sealed: bytes) -> PasskeyChallenge:
        """Open a challenge for a passkey. Raises `BrokenSealError`."""
        return PasskeyChallenge(**self._unseal(PASSKEY_CHALLENGE, sealed))

    def name_tag(self, key: NameKey, key_id: KeyId) -> bytes:
        """Return the keyed hash that authentication finds a user by (A6)."""
        return self._mac(NAME_TAG, key.encode(errors="replace"), key_id)

    def name_tags(self, key: NameKey) -> tuple[bytes, ...]:
        """Return the tags that a user may have: the active key's first, then older keys'."""
        keys = (self._ring.active, *self._ring.aging)
        return tuple(self.name_tag(key, key_id) for key_id in keys)

    def unknown_name_salt(self, secret: Secret, tag: bytes) -> bytes:
        """Return the salt of a user who does not exist: always the same (A6)."""
        message = _canonical((secret.value, tag))
        return self._mac(UNKNOWN_NAME, message, self._ring.active)[:SALT_BYTES]

    def request_tags(self, method: str, content: bytes) -> tuple[int, ...]:
        """
        Return the tags of a request's content (Q1): the active key's comes first.

        32 bits are enough to notice another request under the same id, and too few to
        find a PIN or a code from. The other tags are those of older keys: a request may
        have been remembered before a rotation.
        """
        message = _canonical((method, content))
        return tuple(
            int.from_bytes(self._mac(REQUEST_TAG, message, key_id)[:TAG_BYTES])
            for key_id in (self._ring.active, *self._ring.aging)
        )

    def device_code_tags(self, bound: SessionId) -> tuple[bytes, ...]:
        """
        Return the keyed hashes of a device code: the active key's comes first (P9).

        *bound*: the hash of the code and of the client's certificate.
        """
        keys = (self._ring.active, *self._ring.aging)
        return tuple(self._mac(DEVICE_CODE, bound.encode(), each) for each in keys)

    def user_code_tags(self, name: AdministratorName, code: str) -> tuple[bytes, ...]:
        """Return the keyed hashes of an administrator's user code, as for device codes."""
        message = _canonical((name, code))
        keys = (self._ring.active, *self._ring.aging)
        return tuple(self._mac(USER_CODE, message, each) for each in keys)

    def join_secret(
        self, name: AdministratorName, request_id: RequestId, node_id: NodeId
    ) -> bytes:
        """
        Return the 128 bits of a join ticket (P5).

        Derived like a bearer: a retry gets the same ticket on any node, and deriving it
        takes the ring's key. A retry across a rotation gets a useless ticket; then the
        operator creates another.
        """
        message = _canonical((name, request_id, node_id))
        return self._mac(JOIN_TICKET, message, self._ring.active)[:JOIN_SECRET_BYTES]

    def checkpoint_key(self) -> tuple[KeyId, Ed25519PrivateKey]:
        """Return the key that signs checkpoints of the audit log now (U2)."""
        key_id = self._ring.active
        return key_id, self._ring.checkpoint_key(key_id)

    def checkpoint_public_key(self, key_id: KeyId) -> bytes | None:
        """Return the public key that verifies signatures of a key the ring holds or held."""
        if key_id in self._ring.key_ids:
            return self._ring.checkpoint_key(key_id).public_key().public_bytes_raw()
        return self._ring.retired.get(key_id)

    def _seal(
        self, purpose: str, content: Mapping[str, object], key_id: KeyId | None = None
    ) -> bytes:
        """Seal content that callers keep and return, for this cluster alone."""
        key_id = self._ring.active if key_id is None else key_id
        header = FORM + key_id.to_bytes(KEY_ID_BYTES)
        sealed = self._cipher(key_id, purpose).encrypt(
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
        # Content that opens was sealed by a member, so its form needs no check.
        return content

    def _kept(self, purpose: str, header: bytes) -> list[bytes]:
        """Return the associated data of a seal. A restored cluster has a new id (E1)."""
        return [purpose.encode(), header, self._ring.cluster_id.encode()]

    def _verifier(
        self, hashed: bytes, key_id: KeyId, secret: Secret, *belongs_to: str
    ) -> bytes:
        purpose = f"{VERIFIER}/{secret.value}"
        return self._sealed(key_id, purpose, hashed, [secret.value, *belongs_to])

    def _hash_in(
        self, verifier: bytes, key_id: KeyId, secret: Secret, *belongs_to: str
    ) -> bytes:
        purpose = f"{VERIFIER}/{secret.value}"
        return self._opened(key_id, purpose, verifier, [secret.value, *belongs_to])

    def _sealed(
        self, key_id: KeyId, purpose: str, content: bytes, belongs_to: Sequence[str]
    ) -> bytes:
        associated = [each.encode() for each in belongs_to]
        return self._cipher(key_id, purpose).encrypt(content, associated)

    def _opened(
        self, key_id: KeyId, purpose: str, sealed: bytes, belongs_to: Sequence[str]
    ) -> bytes:
        associated = [each.encode() for each in belongs_to]
        try:
            return self._cipher(key_id, purpose).decrypt(sealed, associated)
        except (InvalidTag, ValueError):
            what = f"{purpose} of {', '.join(belongs_to[1:])}"
            raise BrokenSealError(f"the {what} does not open") from None

    def _cipher(self, key_id: KeyId, purpose: str) -> AESSIV:
        return AESSIV(self._ring.subkey(key_id, purpose))

    def _mac(self, purpose: str, message: bytes, key_id: KeyId) -> bytes:
        return hmac.digest(self._ring.subkey(key_id, purpose), message, "sha256")


def session_id(bearer: str, client_certificate: str = "") -> SessionId:
    """
    Return the id of the bearer's session: its SHA-256. The bearer is not stored.

    With another client certificate, or with none, the same bearer names no session.
    """
    content = bearer.encode(errors="replace")
    if client_certificate:
        # No text in UTF-8 has this byte, so no bearer alone gives the same content.
        content = b"\xff" + client_certificate.encode() + b"\xff" + content
    return SessionId(hashlib.sha256(content).hexdigest())


def _canonical(parts: "tuple[FieldValue, ...] | list[FieldValue]") -> bytes:
    """Return *parts* as bytes, different for every list of parts."""
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

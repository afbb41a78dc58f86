# SPDX-License-Identifier: Apache-2.0
"""
Codes encrypted for a link: no key of the cluster opens them (I13).

A link holds 32 random bytes. Two values come from them by HKDF-SHA256 (RFC 5869): the
key of AES-256-GCM, and the *opener*, which the page of the link sends to get the
encrypted codes. A node that has seen the opener cannot compute the key. The state has
only SHA-256 of the opener, so a reader of the state cannot open anything either.

`console/static/sealed.js` computes the same in the browser.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sparecode_node.domain.ids import SetId, UserId
from sparecode_node.services.ambient import Entropy

LINK_BYTES = 32
NONCE_BYTES = 12
KEY_BYTES = 32
KEY_INFO: Final = b"sparecode sealed codes: key"
OPENER_INFO: Final = b"sparecode sealed codes: opener"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedLink:
    """A link that exists only until its mail is sent, and what the state keeps of it."""

    secret: str = field(repr=False)
    """The part of the link after `#`. Never in the log, the state or a log file."""
    opener: str
    ciphertext: bytes = field(repr=False)


def seal(entropy: Entropy, codes: Sequence[str], *, associated: bytes) -> SealedLink:
    """Encrypt the codes of a set for a new link."""
    secret = entropy.token_bytes(LINK_BYTES)
    nonce = entropy.token_bytes(NONCE_BYTES)
    sealed = AESGCM(_derived(secret, KEY_INFO)).encrypt(
        nonce, json.dumps(list(codes)).encode(), associated
    )
    return SealedLink(
        secret=text_of(secret),
        opener=hash_of(text_of(_derived(secret, OPENER_INFO))),
        ciphertext=nonce + sealed,
    )


def associated_data(cluster_id: str, set_id: SetId, user_id: UserId) -> bytes:
    """Return what the encryption is bound to: one set of one user of one cluster."""
    return f"sparecode {cluster_id} {set_id} {user_id}".encode()


def hash_of(opener: str) -> str:
    """Return the hash under which the state keeps what a page sends."""
    return hashlib.sha256(opener.encode(errors="replace")).hexdigest()


def text_of(value: bytes) -> str:
    """Return bytes as they stand in a link (base64url without padding)."""
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _derived(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(
        secret
    )

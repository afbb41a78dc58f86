# SPDX-License-Identifier: Apache-2.0
"""
The file of a node's key ring, which the node can write (P5).

Rotation writes the new key into the ring of every member before it is used (T3), so the
ring is in a folder of the node, outside the database. Credentials that systemd or
Kubernetes provide are read-only; they can hold the *wrapping key*, which never changes
and encrypts the file. Then a copy of the node's folders opens nothing, and the
credential may come from a TPM or a vault.

    {"wrapped": "AES-SIV", "ring": "base64"}

A plain ring is read too, and wrapped at the next start. So a node changes from the
plain form to the wrapped one.
"""

import base64
import binascii
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sparecode_node.services.ambient import Entropy
from sparecode_node.services.secrets.keyring import (
    KeyRing,
    KeyRingError,
    read_private,
    write_private,
)

WRAPPING_KEY_BYTES = 32
_CIPHER: Final = "AES-SIV"
_CIPHER_KEY_BYTES = 64
_PURPOSE = b"sparecode/v1/key-ring-file"


@dataclass(frozen=True, slots=True, kw_only=True)
class RingFile:
    """The ring's file, the key that wraps it, and the ring it starts from."""

    path: Path
    wrapping_key: Path | None = None
    """Base64 of 32 bytes, read-only. None: the ring is stored plain."""
    initial: Path | None = None
    """A provided ring, which is taken over once if there is none at `path`."""

    def beside(self, path: Path) -> "RingFile":
        """Return another file that is wrapped with the same key."""
        return replace(self, path=path, initial=None)

    def exists(self) -> bool:
        """Return whether there is a ring, the node's own or a provided one."""
        return self._source().exists()

    def is_settled(self) -> bool:
        """Return whether the ring has its final place and form. Raises `KeyRingError`."""
        if not self.path.exists():
            return False
        return self.wrapping_key is None or _is_wrapped(read_private(self.path))

    def load(self) -> KeyRing:
        """Read the ring. Raises `KeyRingError`; quotes no key."""
        source = self._source()
        text = read_private(source)
        if _is_wrapped(text):
            text = self._unwrapped(source, text)
        try:
            return KeyRing.from_bytes(text)
        except ValueError as error:
            raise KeyRingError(f"{source}: not a key ring: {error}") from None

    def save(self, ring: KeyRing) -> None:
        """Write the ring atomically. Raises `KeyRingError`."""
        text = ring.to_bytes()
        if self.wrapping_key is not None:
            sealed = AESSIV(self._cipher_key()).encrypt(text, [_PURPOSE])
            form = {"wrapped": _CIPHER, "ring": base64.b64encode(sealed).decode()}
            text = json.dumps(form).encode() + b"\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KeyRingError(f"{self.path.parent}: {error.strerror}") from error
        write_private(self.path, text)

    def prepare(self, entropy: Entropy) -> None:
        """Draw the wrapping key when a node is set up. Raises `KeyRingError`."""
        if self.wrapping_key is not None and not self.wrapping_key.exists():
            drawn = base64.b64encode(entropy.token_bytes(WRAPPING_KEY_BYTES))
            write_private(self.wrapping_key, drawn + b"\n")

    def _source(self) -> Path:
        if self.initial is not None and not self.path.exists():
            return self.initial
        return self.path

    def _unwrapped(self, source: Path, text: bytes) -> bytes:
        if self.wrapping_key is None:
            raise KeyRingError(
                f"{source}: is wrapped; name its key in node.toml: [keys] wrapping_key"
            )
        try:
            sealed = base64.b64decode(json.loads(text)["ring"], validate=True)
            return AESSIV(self._cipher_key()).decrypt(sealed, [_PURPOSE])
        except (InvalidTag, binascii.Error, KeyError, TypeError, ValueError):
            raise KeyRingError(
                f"{source}: is damaged, or was not wrapped with {self.wrapping_key}: "
                "restore that key; or remove this node, and let it join again under "
                "a new id"
            ) from None

    def _cipher_key(self) -> bytes:
        if self.wrapping_key is None:
            raise KeyRingError(f"{self.path}: there is no wrapping key")
        try:
            key = base64.b64decode(
                read_private(self.wrapping_key).strip(), validate=True
            )
        except binascii.Error:
            key = b""
        if len(key) != WRAPPING_KEY_BYTES:
            raise KeyRingError(
                f"{self.wrapping_key}: must be base64 of {WRAPPING_KEY_BYTES} bytes: "
                f"head -c {WRAPPING_KEY_BYTES} /dev/urandom | base64"
            )
        return HKDF(
            algorithm=SHA256(), length=_CIPHER_KEY_BYTES, salt=None, info=_PURPOSE
        ).derive(key)


def _is_wrapped(text: bytes) -> bool:
    try:
        form = json.loads(text)
    except ValueError:
        return False
    return isinstance(form, dict) and form.get("wrapped") == _CIPHER

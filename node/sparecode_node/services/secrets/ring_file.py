# SPDX-License-Identifier: Apache-2.0
"""
The file of a node's key ring, which the node can write (P5).

Rotation writes the new key into the ring of every member before it is used (T3), so the
ring is in a folder of the node, outside the database. Credentials that systemd or
Kubernetes provide are read-only; they can hold the *wrapping key*, which never changes
and encrypts the file. Then a copy of the node's folders opens nothing, and the
credential may come from a TPM or a vault.

    {"wrapped": "AES-SIV", "ring": "base64"}

Instead of a wrapping key, a program can protect the file (`wrap_command`). Then each
save draws a new key for the file, and the program wraps that key:

    {"wrapped": "AES-SIV", "ring": "base64", "key": "base64, from the program"}

A ring in another form than the configured one is read too, and gets the configured form
at the next start. So a node changes from the plain form to a wrapped one.
"""

import base64
import binascii
import enum
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sparecode_node.fault_points import Point, reach
from sparecode_node.services.ambient import Entropy, SystemEntropy
from sparecode_node.services.secrets.keyring import (
    KeyRing,
    KeyRingError,
    read_private,
    write_private,
)
from sparecode_node.services.secrets.wrap_command import KEY_BYTES, WrapCommand

WRAPPING_KEY_BYTES = 32
NOT_ENCRYPTED = "not encrypted"
_CIPHER: Final = "AES-SIV"
_CIPHER_KEY_BYTES = 64
_PURPOSE = b"sparecode/v1/key-ring-file"


class _Form(enum.Enum):
    PLAIN = enum.auto()
    BY_KEY = enum.auto()
    BY_COMMAND = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class RingFile:
    """The ring's file, what wraps it, and the ring it starts from."""

    path: Path
    wrapping_key: Path | None = None
    """Base64 of 32 bytes, read-only."""
    command: WrapCommand | None = None
    """Wraps the key of the file. The wrapping key then only opens an earlier file."""
    initial: Path | None = None
    """A provided ring, which is taken over once if there is none at `path`."""

    def beside(self, path: Path) -> "RingFile":
        """Return another file that is wrapped in the same way."""
        return replace(self, path=path, initial=None)

    def exists(self) -> bool:
        """Return whether there is a ring, the node's own or a provided one."""
        return self._source().exists()

    def is_settled(self) -> bool:
        """Return whether the ring has its final place and form. Raises `KeyRingError`."""
        if not self.path.exists():
            return False
        if self.command is None and self.wrapping_key is None:
            return True
        wanted = _Form.BY_KEY if self.command is None else _Form.BY_COMMAND
        return _form(read_private(self.path)) is wanted

    def protection(self) -> str:
        """Return what encrypts the file, for messages."""
        if self.command is not None:
            return f"encrypted by {self.command}"
        if self.wrapping_key is not None:
            return f"encrypted with {self.wrapping_key}"
        return NOT_ENCRYPTED

    def load(self) -> KeyRing:
        """Read the ring. Raises `KeyRingError`; quotes no key."""
        source = self._source()
        text = read_private(source)
        match _form(text):
            case _Form.BY_KEY:
                text = self._opened_by_key(source, text)
            case _Form.BY_COMMAND:
                text = self._opened_by_command(source, text)
            case _Form.PLAIN:
                pass
        try:
            return KeyRing.from_bytes(text)
        except ValueError as error:
            raise KeyRingError(f"{source}: not a key ring: {error}") from None

    def save(self, ring: KeyRing) -> None:
        """Write the ring atomically. Raises `KeyRingError`, and keeps the earlier file."""
        text = ring.to_bytes()
        if self.command is not None:
            key = SystemEntropy().token_bytes(KEY_BYTES)
            wrapped = base64.b64encode(self._wrapped(self.command, key))
            text = _written(text, key, key=wrapped.decode())
        elif self.wrapping_key is not None:
            text = _written(text, self._key())
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            reach(Point.RING_WRITE)
        except OSError as error:
            raise KeyRingError(f"{self.path.parent}: {error.strerror}") from error
        write_private(self.path, text)
        reach(Point.RING_WRITTEN)

    def prepare(self, entropy: Entropy) -> None:
        """
        Draw the wrapping key, or try the command, when a node is set up.

        Raises `KeyRingError`: a ring that cannot be stored must not be drawn or fetched.
        """
        if self.command is not None:
            self.command.wrap(entropy.token_bytes(KEY_BYTES))
        elif self.wrapping_key is not None and not self.wrapping_key.exists():
            drawn = base64.b64encode(entropy.token_bytes(WRAPPING_KEY_BYTES))
            write_private(self.wrapping_key, drawn + b"\n")

    def _source(self) -> Path:
        if self.initial is not None and not self.path.exists():
            return self.initial
        return self.path

    def _wrapped(self, command: WrapCommand, key: bytes) -> bytes:
        try:
            return command.wrap(key)
        except KeyRingError as error:
            raise KeyRingError(f"{self.path}: {error}") from error

    def _opened_by_key(self, source: Path, text: bytes) -> bytes:
        if self.wrapping_key is None:
            raise KeyRingError(
                f"{source}: is wrapped; name its key in node.toml: [keys] wrapping_key"
            )
        opened = _opened(text, self._key())
        if opened is None:
            raise KeyRingError(
                f"{source}: is damaged, or was not wrapped with {self.wrapping_key}: "
                "restore that key; or remove this node, and let it join again under "
                "a new id"
            )
        return opened

    def _opened_by_command(self, source: Path, text: bytes) -> bytes:
        if self.command is None:
            raise KeyRingError(
                f"{source}: is wrapped by a program; name it in node.toml: "
                "[keys] wrap_command"
            )
        try:
            wrapped = base64.b64decode(json.loads(text)["key"], validate=True)
            opened = _opened(text, self.command.unwrap(wrapped))
        except (binascii.Error, TypeError, ValueError):
            opened = None
        except KeyRingError as error:
            raise KeyRingError(f"{source}: {error}") from error
        if opened is None:
            raise KeyRingError(
                f"{source}: is damaged, or {self.command} returned another key: restore "
                "its key or the file; or remove this node, and let it join again under "
                "a new id"
            )
        return opened

    def _key(self) -> bytes:
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
        return key


def _written(text: bytes, wrapping_key: bytes, **fields: str) -> bytes:
    """Return the file's text: the ring, encrypted, and further fields."""
    sealed = _cipher(wrapping_key).encrypt(text, [_PURPOSE])
    form = {"wrapped": _CIPHER, "ring": base64.b64encode(sealed).decode(), **fields}
    return json.dumps(form).encode() + b"\n"


def _opened(text: bytes, wrapping_key: bytes) -> bytes | None:
    """Return the ring in a file's text; None: it is damaged, or the key does not fit."""
    try:
        sealed = base64.b64decode(json.loads(text)["ring"], validate=True)
        return _cipher(wrapping_key).decrypt(sealed, [_PURPOSE])
    except (InvalidTag, binascii.Error, KeyError, TypeError, ValueError):
        return None


def _cipher(wrapping_key: bytes) -> AESSIV:
    key = HKDF(algorithm=SHA256(), length=_CIPHER_KEY_BYTES, salt=None, info=_PURPOSE)
    return AESSIV(key.derive(wrapping_key))


def _form(text: bytes) -> _Form:
    try:
        form = json.loads(text)
    except (RecursionError, ValueError):
        return _Form.PLAIN
    if not isinstance(form, dict) or form.get("wrapped") != _CIPHER:
        return _Form.PLAIN
    return _Form.BY_COMMAND if "key" in form else _Form.BY_KEY

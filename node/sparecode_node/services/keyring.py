# SPDX-License-Identifier: Apache-2.0
"""
The key ring: the cluster's secret keys, in a file outside the database (P5).

The file is JSON, readable by its owner alone, and the same on every member:

    {"cluster_id": "...", "active": 1, "keys": {"1": "base64 of 64 bytes"}}

No key is used itself: each purpose has a subkey of its own, so that what was
made for one purpose means nothing to another.
"""

import base64
import binascii
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sparecode_node.domain.ids import KeyId
from sparecode_node.services.ambient import Entropy

KEY_BYTES = 64
MODE = 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class KeyRingError(Exception):
    """The key ring's file cannot be used. The message names the file and the fault."""


class UnknownKeyError(Exception):
    """The ring does not hold the key that something was made with."""

    def __init__(self, key_id: KeyId) -> None:
        super().__init__(f"the key ring has no key {key_id}")
        self.key_id = key_id


class KeyRing:
    """The cluster's keys, by id; one of them is active: new things are made with it."""

    def __init__(
        self, *, cluster_id: str, active: KeyId, keys: Mapping[KeyId, bytes]
    ) -> None:
        if active not in keys:
            raise UnknownKeyError(active)
        self.cluster_id = cluster_id
        self.active = active
        self._keys = dict(keys)
        self._subkeys: dict[tuple[KeyId, str], bytes] = {}

    def __repr__(self) -> str:
        """Name the keys; never show them."""
        return (
            f"KeyRing(cluster_id={self.cluster_id!r}, active={self.active}, "
            f"key_ids={sorted(self._keys)})"
        )

    @classmethod
    def draw(cls, entropy: Entropy) -> "KeyRing":
        """Return the ring of a new cluster: a new id and one new key."""
        return cls(
            cluster_id=entropy.uuid(),
            active=KeyId(1),
            keys={KeyId(1): entropy.token_bytes(KEY_BYTES)},
        )

    @classmethod
    def load(cls, path: Path) -> "KeyRing":
        """Read the ring's file. Raises `KeyRingError`."""
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                mode = stat.S_IMODE(status.st_mode)
                if mode & forbidden_bits(status.st_uid, os.geteuid()):
                    raise KeyRingError(
                        f"{path}: others than its owner have access (mode "
                        f"{mode:04o}); it must be {MODE:04o}: chmod 600 {path}"
                    )
                content = file.read()
        except OSError as error:
            raise KeyRingError(f"{path}: {error.strerror or error}") from error
        try:
            return _parse(content)
        except (ValueError, UnknownKeyError) as error:
            raise KeyRingError(f"{path}: not a key ring: {error}") from None

    def save(self, path: Path) -> None:
        """Write the ring's file at once or not at all. Raises `KeyRingError`."""
        content = {
            "cluster_id": self.cluster_id,
            "active": self.active,
            "keys": {
                str(key_id): base64.b64encode(key).decode()
                for key_id, key in sorted(self._keys.items())
            },
        }
        write_private(path, json.dumps(content, indent=2).encode() + b"\n")

    @property
    def key_ids(self) -> tuple[KeyId, ...]:
        """The ids of all keys, in order."""
        return tuple(sorted(self._keys))

    def subkey(self, key_id: KeyId, purpose: str) -> bytes:
        """Return the 64 bytes of a key for one purpose. Raises `UnknownKeyError`."""
        found = self._subkeys.get((key_id, purpose))
        if found is not None:
            return found
        key = self._keys.get(key_id)
        if key is None:
            raise UnknownKeyError(key_id)
        derived = HKDF(
            algorithm=SHA256(),
            length=KEY_BYTES,
            salt=self.cluster_id.encode(),
            info=b"sparecode/v1/" + purpose.encode(),
        ).derive(key)
        self._subkeys[key_id, purpose] = derived
        return derived


def forbidden_bits(owner: int, user: int) -> int:
    """
    Return the bits of a mode that a secret's file must not have.

    A node cannot own what systemd (LoadCredential) or Kubernetes (fsGroup) gives it:
    the file is root's, and the node's group may read it.
    """
    given = owner == 0 and user != 0
    return OTHERS & ~stat.S_IRGRP if given else OTHERS


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 at once or not at all. Raises `KeyRingError`."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise KeyRingError(f"{path}: {error.strerror or error}") from error


def _parse(content: bytes) -> KeyRing:
    """Read a ring. Raises `ValueError` and `UnknownKeyError`; quotes no key."""
    try:
        ring = json.loads(content)
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(ring, dict) or set(ring) != {"cluster_id", "active", "keys"}:
        raise ValueError("it must hold cluster_id, active and keys, and nothing else")
    cluster_id, active, keys = ring["cluster_id"], ring["active"], ring["keys"]
    if not isinstance(cluster_id, str) or not cluster_id:
        raise ValueError("cluster_id must be a string")
    if not (type(active) is int and isinstance(keys, dict)):
        raise ValueError("active must be a number, and keys must map numbers to keys")
    return KeyRing(
        cluster_id=cluster_id,
        active=KeyId(active),
        keys={_key_id(name): _key(name, value) for name, value in keys.items()},
    )


def _key_id(name: str) -> KeyId:
    """Read a key's number."""
    if not (name.isascii() and name.isdigit()):
        raise ValueError("a key's name must be its number")
    return KeyId(int(name))


def _key(name: str, value: object) -> bytes:
    """Read a key."""
    try:
        key = base64.b64decode(str(value), validate=True)
    except binascii.Error:
        raise ValueError(f"key {name} is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"key {name} has {len(key)} bytes, not {KEY_BYTES}")
    return key

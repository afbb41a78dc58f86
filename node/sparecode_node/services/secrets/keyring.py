# SPDX-License-Identifier: Apache-2.0
"""
The key ring: the cluster's secret keys, in a file outside the database (P5).

The file is readable by its owner alone, and the same on every member. The active key
is part of the replicated state; the file only has the last known one, and `follow`
updates the ring after each change. A *waiting* key has no number yet: the command that
activates it gives it one. Of a *retired* key only the public half of its checkpoint key
is kept (U2).

Keys are never used directly: each purpose has its own subkey, so a value made for one
purpose is useless for another.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.keys import KeyInUse, KeysInState
from sparecode_node.durable_files import write_file
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.secrets import keyring_form
from sparecode_node.services.secrets.keyring_form import (
    KEY_BYTES,
    RingContent,
    WaitingKey,
)

MODE = 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO

CHECKPOINT: Final = "audit-checkpoint"
FINGERPRINT: Final = "fingerprint"
FINGERPRINT_BYTES = 16
ED25519_SEED_BYTES = 32


class KeyRingError(Exception):
    """The key ring's file cannot be used. The message names the file and the fault."""


class UnknownKeyError(Exception):
    """The ring does not hold the key of a sealed value."""

    def __init__(self, key_id: KeyId) -> None:
        super().__init__(f"the key ring has no key {key_id}")
        self.key_id = key_id


class KeyRing:
    """
    The cluster's keys, by id. New values are sealed with the active one.

    One thread at a time may change it and any thread may read it: values that are read
    are replaced as a whole.
    """

    def __init__(
        self,
        *,
        cluster_id: str,
        active: KeyId,
        keys: Mapping[KeyId, bytes],
        waiting: Iterable[WaitingKey] = (),
        retired: Mapping[KeyId, bytes] | None = None,
        origin: str = "",
    ) -> None:
        if active not in keys:
            raise UnknownKeyError(active)
        self.cluster_id = cluster_id
        self.origin = origin
        """The cluster that the keys were drawn for; empty: this one. Its sealed values
        stay readable when a new cluster starts from its state (E2)."""
        self.active = active
        self.missing: tuple[KeyInUse, ...] = ()
        """Keys that the state uses and this ring lacks, as of the last `follow`."""
        self.aging: tuple[KeyId, ...] = ()
        """Replaced keys that some values are still sealed with."""
        self.waiting = tuple(waiting)
        self.retired: Mapping[KeyId, bytes] = dict(retired or {})
        """Public keys that verify the checkpoints of retired keys."""
        self._keys = dict(keys)
        self._subkeys: dict[tuple[KeyId, str], bytes] = {}

    def __repr__(self) -> str:
        """Name the keys; never show them."""
        return (
            f"KeyRing(cluster_id={self.cluster_id!r}, active={self.active}, "
            f"key_ids={sorted(self._keys)}, waiting={len(self.waiting)})"
        )

    @classmethod
    def draw(cls, entropy: Entropy) -> Self:
        """Return the ring of a new cluster: a new id and one new key."""
        return cls(
            cluster_id=entropy.uuid(),
            active=KeyId(1),
            keys={KeyId(1): entropy.token_bytes(KEY_BYTES)},
        )

    # --- Its text and its file

    @classmethod
    def from_bytes(cls, text: bytes) -> Self:
        """Return the ring from a text that `to_bytes` wrote. Raises `ValueError`; quotes no key."""
        content = keyring_form.parse(text)
        if content.active not in content.keys:
            raise ValueError(str(UnknownKeyError(content.active)))
        return cls(
            cluster_id=content.cluster_id,
            active=content.active,
            keys=content.keys,
            waiting=content.waiting,
            retired=content.retired,
            origin=content.origin,
        )

    def for_cluster(self, cluster_id: str) -> Self:
        """Return the same keys for a new cluster that starts from this one's state (E2)."""
        return type(self)(
            cluster_id=cluster_id,
            active=self.active,
            keys=self._keys,
            retired=self.retired,
            origin=self.origin or self.cluster_id,
        )

    def to_bytes(self) -> bytes:
        """Return the whole ring as a text. It is as secret as the keys in it."""
        return keyring_form.write(
            RingContent(
                cluster_id=self.cluster_id,
                # A ring that lacks the active key must still be readable.
                active=self.active if self.active in self._keys else max(self._keys),
                keys=self._keys,
                waiting=self.waiting,
                retired=self.retired,
                origin=self.origin,
            )
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a ring that is not wrapped. Raises `KeyRingError`."""
        try:
            return cls.from_bytes(read_private(path))
        except ValueError as error:
            raise KeyRingError(f"{path}: not a key ring: {error}") from None

    def save(self, path: Path) -> None:
        """Write the ring's file atomically. Raises `KeyRingError`."""
        write_private(path, self.to_bytes())

    # --- What it holds

    @property
    def key_ids(self) -> tuple[KeyId, ...]:
        """The ids of all keys, in order."""
        return tuple(sorted(self._keys))

    def subkey(self, key_id: KeyId, purpose: str) -> bytes:
        """Return the 64 bytes of a key for one purpose. Raises `UnknownKeyError`."""
        subkey = self._subkeys.get((key_id, purpose))
        if subkey is not None:
            return subkey
        key = self._keys.get(key_id)
        if key is None:
            raise UnknownKeyError(key_id)
        derived = self._derived(key, purpose)
        self._subkeys = {**self._subkeys, (key_id, purpose): derived}
        return derived

    def checkpoint_key(self, key_id: KeyId) -> Ed25519PrivateKey:
        """Return the key that signs checkpoints, equal on all members. Raises `UnknownKeyError`."""
        return self._signing(self.subkey(key_id, CHECKPOINT))

    def fingerprint(self, key: bytes) -> bytes:
        """Return a fingerprint that identifies a key and reveals nothing about it."""
        return self._derived(key, FINGERPRINT)[:FINGERPRINT_BYTES]

    def find(self, key_in_use: KeyInUse) -> bytes | None:
        """Return a key that another member lacks, if this ring holds it."""
        held = self._keys.get(key_in_use.key_id)
        if held is not None and self._is(held, key_in_use):
            return held
        if not key_in_use.fingerprint:
            return None
        waiting = (each.key for each in self.waiting)
        return next((key for key in waiting if self._is(key, key_in_use)), None)

    # --- How it changes

    def hold(self, waiting: WaitingKey) -> bytes:
        """Add a key that may be activated; return its fingerprint."""
        if waiting not in self.waiting:
            self.waiting = (*self.waiting, waiting)
        return self.fingerprint(waiting.key)

    def take(self, key_in_use: KeyInUse, key: bytes) -> bool:
        """Add a missing key; return whether it was the right one."""
        if len(key) != KEY_BYTES or not self._is(key, key_in_use):
            return False
        self._put(key_in_use.key_id, key)
        self.missing = tuple(each for each in self.missing if each != key_in_use)
        return True

    def follow(self, state: KeysInState) -> bool:
        """Follow the state: active, missing and retired keys. Return whether the file changes."""
        if not state.active:
            return False
        before = self.to_bytes()
        missing = []
        for key_in_use in state.in_use:
            key = self.find(key_in_use)
            if key is None:
                missing.append(key_in_use)
            elif self._keys.get(key_in_use.key_id) != key:
                self._put(key_in_use.key_id, key)
        self.missing = tuple(missing)
        self.aging = tuple(each.key_id for each in state.aging)
        self.active = state.active
        self.waiting = tuple(w for w in self.waiting if w.replaces >= state.active)
        for retired in state.retired:
            if not retired.keep and retired.key_id in self._keys:
                self._retire(retired.key_id)
        return self.to_bytes() != before

    def _put(self, key_id: KeyId, key: bytes) -> None:
        self._keys = {**self._keys, key_id: key}
        self._forget_subkeys(key_id)

    def _retire(self, key_id: KeyId) -> None:
        public = self.checkpoint_key(key_id).public_key().public_bytes_raw()
        self.retired = {**self.retired, key_id: public}
        self._keys = {each: key for each, key in self._keys.items() if each != key_id}
        self._forget_subkeys(key_id)

    def _forget_subkeys(self, key_id: KeyId) -> None:
        self._subkeys = {
            name: key for name, key in self._subkeys.items() if name[0] != key_id
        }

    def _is(self, key: bytes, key_in_use: KeyInUse) -> bool:
        """Return whether *key* is the one in use. A cluster's first has no fingerprint."""
        return (
            not key_in_use.fingerprint
            or self.fingerprint(key) == key_in_use.fingerprint
        )

    def _derived(self, key: bytes, purpose: str) -> bytes:
        return HKDF(
            algorithm=SHA256(),
            length=KEY_BYTES,
            salt=(self.origin or self.cluster_id).encode(),
            info=b"sparecode/v1/" + purpose.encode(),
        ).derive(key)

    @staticmethod
    def _signing(subkey: bytes) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(subkey[:ED25519_SEED_BYTES])


def forbidden_bits(owner: int, user: int) -> int:
    """
    Return the mode bits that a secret's file must not have.

    A node does not own the files that systemd (LoadCredential) or Kubernetes (fsGroup)
    provide: root owns them, and the node's group may read them.
    """
    provided = owner == 0 and user != 0
    return OTHERS & ~stat.S_IRGRP if provided else OTHERS


def read_private(path: Path) -> bytes:
    """Read a file that only its owner may read. Raises `KeyRingError`."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & forbidden_bits(status.st_uid, os.geteuid()):
                raise KeyRingError(
                    f"{path}: other users have access (mode {mode:04o}); it must be "
                    f"{MODE:04o}: chmod 600 {path}"
                )
            return file.read()
    except OSError as error:
        raise KeyRingError(f"{path}: {error.strerror or error}") from error


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 atomically. Raises `KeyRingError`."""
    try:
        write_file(path, content, MODE)
    except OSError as error:
        raise KeyRingError(f"{path}: {error.strerror or error}") from error

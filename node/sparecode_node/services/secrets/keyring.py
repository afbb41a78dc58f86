# SPDX-License-Identifier: Apache-2.0
"""
The key ring: the cluster's secret keys, in a file outside the database (P5).

The file is readable by its owner alone, and the same on every member. Which key
is active is a part of the replicated state, and in the file a beginning only:
`follow` is told after each change. A key that *waits* has no number yet; the
command that activates it gives it one. Of a *retired* key nothing is left but
the public half of what has signed checkpoints of the audit log (U2).

No key is used itself: each purpose has a subkey of its own, so that what was
made for one purpose means nothing to another.
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
    """The ring does not hold the key that something was made with."""

    def __init__(self, key_id: KeyId) -> None:
        super().__init__(f"the key ring has no key {key_id}")
        self.key_id = key_id


class KeyRing:
    """
    The cluster's keys, by id; one of them is active: new things are made with it.

    Changed by one thread at a time, read by any: what is read is replaced whole.
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
        """The cluster that the keys were drawn for; empty: this one. What it has sealed
        stays readable when a new cluster begins from its state (E2)."""
        self.active = active
        self.missing: tuple[KeyInUse, ...] = ()
        """Keys that the state uses and this ring lacks, as far as it was told."""
        self.aging: tuple[KeyId, ...] = ()
        """Those that the active key has replaced, and that something is made with."""
        self.waiting = tuple(waiting)
        self.retired: Mapping[KeyId, bytes] = dict(retired or {})
        """What verifies the checkpoints of keys that are gone."""
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
        """Return the ring of a text of `to_bytes`. Raises `ValueError`; quotes no key."""
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
        """Return the same keys for a cluster that begins from this one's state (E2)."""
        return type(self)(
            cluster_id=cluster_id,
            active=self.active,
            keys=self._keys,
            retired=self.retired,
            origin=self.origin or self.cluster_id,
        )

    def to_bytes(self) -> bytes:
        """Return the whole ring as a text, secret as the keys in it."""
        return keyring_form.write(
            RingContent(
                cluster_id=self.cluster_id,
                # A ring that lacks the active key still has to be readable.
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
        """Write the ring's file at once or not at all. Raises `KeyRingError`."""
        write_private(path, self.to_bytes())

    # --- What it holds

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
        derived = self._derived(key, purpose)
        self._subkeys = {**self._subkeys, (key_id, purpose): derived}
        return derived

    def checkpoint_key(self, key_id: KeyId) -> Ed25519PrivateKey:
        """Return what signs checkpoints, alike on each member. Raises `UnknownKeyError`."""
        return self._signing(self.subkey(key_id, CHECKPOINT))

    def fingerprint(self, key: bytes) -> bytes:
        """Return what tells a key from any other, and says nothing about it."""
        return self._derived(key, FINGERPRINT)[:FINGERPRINT_BYTES]

    def find(self, wanted: KeyInUse) -> bytes | None:
        """Return a key that another member lacks, if it is here."""
        held = self._keys.get(wanted.key_id)
        if held is not None and self._is(held, wanted):
            return held
        if not wanted.fingerprint:
            return None
        waiting = (each.key for each in self.waiting)
        return next((key for key in waiting if self._is(key, wanted)), None)

    # --- How it changes

    def hold(self, waiting: WaitingKey) -> bytes:
        """Take a key that may be activated; return its fingerprint."""
        if waiting not in self.waiting:
            self.waiting = (*self.waiting, waiting)
        return self.fingerprint(waiting.key)

    def take(self, wanted: KeyInUse, key: bytes) -> bool:
        """Take a key that was missing; say whether it is the one."""
        if len(key) != KEY_BYTES or not self._is(key, wanted):
            return False
        self._put(wanted.key_id, key)
        self.missing = tuple(each for each in self.missing if each != wanted)
        return True

    def follow(self, state: KeysInState) -> bool:
        """Be what the state says: active, missing, gone. Say whether the file changes."""
        if not state.active:
            return False
        before = self.to_bytes()
        missing = []
        for wanted in state.in_use:
            found = self.find(wanted)
            if found is None:
                missing.append(wanted)
            elif self._keys.get(wanted.key_id) != found:
                self._put(wanted.key_id, found)
        self.missing = tuple(missing)
        self.aging = tuple(each.key_id for each in state.aging)
        self.active = state.active
        self.waiting = tuple(w for w in self.waiting if w.replaces >= state.active)
        for gone in state.retired:
            if not gone.keep and gone.key_id in self._keys:
                self._retire(gone.key_id)
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

    def _is(self, key: bytes, wanted: KeyInUse) -> bool:
        """Say whether it is the key; of a cluster's first one no more is known than its id."""
        return not wanted.fingerprint or self.fingerprint(key) == wanted.fingerprint

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
    Return the bits of a mode that a secret's file must not have.

    A node cannot own what systemd (LoadCredential) or Kubernetes (fsGroup) gives it:
    the file is root's, and the node's group may read it.
    """
    given = owner == 0 and user != 0
    return OTHERS & ~stat.S_IRGRP if given else OTHERS


def read_private(path: Path) -> bytes:
    """Read a file that nobody else may read. Raises `KeyRingError`."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & forbidden_bits(status.st_uid, os.geteuid()):
                raise KeyRingError(
                    f"{path}: others than its owner have access (mode "
                    f"{mode:04o}); it must be {MODE:04o}: chmod 600 {path}"
                )
            return file.read()
    except OSError as error:
        raise KeyRingError(f"{path}: {error.strerror or error}") from error


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

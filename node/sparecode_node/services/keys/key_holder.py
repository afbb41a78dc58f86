# SPDX-License-Identifier: Apache-2.0
"""
Keeps the key ring and its file consistent with the state, and gives keys to members (P5).

The state's file is written first, in the engine's thread. The ring changes at once, and
its file soon after. A crash in between loses nothing: held keys are already in the file,
and at the next start the ring follows the same state again.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path

from sparecode_node.domain.ids import KeyId, NodeId
from sparecode_node.domain.keys import KeyInUse, KeysInState
from sparecode_node.replication.links.key_exchange import (
    CannotHoldError,
    KeyExchange,
    fetch_at_start,
)
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.services.secrets.keyring_form import KEY_BYTES, WaitingKey
from sparecode_node.services.secrets.ring_file import RingFile
from sparecode_node.statemachine.tables import keys as key_tables
from sparecode_node.statemachine.tables.schema import read_only_uri

log = logging.getLogger(__name__)

FETCH_S = 2.0
"""For one member's answer, if a key is missing."""
RETRY_S = 1.0
RETRY_MAX_S = 16.0
"""If the ring cannot be saved; the pause doubles until then."""


class KeyHolder:
    """The only writer of a node's key ring."""

    def __init__(self, ring: KeyRing, file: RingFile) -> None:
        self._ring = ring
        self._file = file
        self.exchange = KeyExchange(self)
        """Reaches the other members, once this node has joined them."""
        # The engine's thread follows the state while the loop takes keys from other
        # members. Held briefly, never over an await.
        self._changing = threading.Lock()
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rewrapping = False

    @property
    def ring(self) -> KeyRing:
        """The ring; for reading only."""
        return self._ring

    def follow(self, state: KeysInState) -> None:
        """Make the ring follow the state. Safe in any thread."""
        with self._changing:
            changed = self._ring.follow(state)
        if changed or self._ring.missing:
            self._wake()

    def rewrap(self, file: RingFile) -> None:
        """
        Write the ring again, encrypted as *file* says, if that may differ.

        The program of a wrap command may have another key now. If it fails, the earlier
        file stays, and no key can be rotated until the ring can be written.
        """
        file = file.beside(self._file.path)
        if file != self._file.beside(self._file.path) or file.command is not None:
            self._file, self._rewrapping = file, True
            self._wake()

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._changed.set)
        else:
            self._changed.set()

    # --- For other members

    async def hold(self, key: bytes, *, replaces: KeyId) -> bytes:
        """Store a key that may be activated, durably. Raises `CannotHoldError`."""
        if len(key) != KEY_BYTES:
            raise CannotHoldError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        with self._changing:
            fingerprint = self._ring.hold(WaitingKey(replaces=replaces, key=key))
        try:
            await self._save()
        except KeyRingError as error:
            raise CannotHoldError(str(error)) from error
        return fingerprint

    def lend(self, key_in_use: KeyInUse) -> bytes | None:
        """Return a key that another member lacks, if this ring holds it."""
        key = self._ring.find(key_in_use)
        if key is not None:
            log.info("key_lent", extra={"key_id": key_in_use.key_id})
        return key

    def take(self, key_in_use: KeyInUse, key: bytes) -> bool:
        """Add a missing key, and return whether it was the right one."""
        with self._changing:
            return self._ring.take(key_in_use, key)

    # --- In the background

    async def run(self) -> None:
        """Write changes and fetch missing keys, until cancelled."""
        self._loop = asyncio.get_running_loop()
        logged: tuple[KeyInUse, ...] = ()
        pause_s = RETRY_S
        while True:
            await self._changed.wait()
            self._changed.clear()
            done = await self._fetch_missing()
            if await self._saved():
                pause_s = RETRY_S
            else:
                done, pause_s = False, min(2 * pause_s, RETRY_MAX_S)
            if self._ring.missing != logged:
                logged = self._ring.missing
                for key in logged:
                    log.error("key_missing", extra={"key_id": key.key_id})
            if not done:
                await asyncio.sleep(pause_s)
                self._changed.set()

    async def _saved(self) -> bool:
        """Write the file and return whether that succeeded."""
        rewrapping, self._rewrapping = self._rewrapping, False
        try:
            await self._save()
        except KeyRingError as error:
            log.error("key_ring_not_saved", extra={"cause": str(error)})  # noqa: TRY400
            self._rewrapping = self._rewrapping or rewrapping
            return False
        if rewrapping:
            log.info("key_ring_wrapped", extra={"how": self._file.protection()})
        return True

    async def _fetch_missing(self) -> bool:
        """Ask the other members for missing keys; return whether none is missing any more."""
        for key_in_use in self._ring.missing:
            key = await self.exchange.fetch(key_in_use, timeout_s=FETCH_S)
            if key is not None and self.take(key_in_use, key):
                log.info("key_fetched", extra={"key_id": key_in_use.key_id})
        return not self._ring.missing

    async def _save(self) -> None:
        async with self._writing:
            await asyncio.to_thread(self._file.save, self._ring)


async def open_ring(
    ring: KeyRing,
    file: RingFile,
    state: Path,
    *,
    others: Mapping[NodeId, str],
    tls: PeerTls,
) -> KeyHolder:
    """
    Return the holder of a ring and its file, with every key that the state uses.

    A node that was down while the key was replaced asks the *others* for it. Raises
    `KeyRingError` if none has it: without the key this node could not tell a right
    passcode from a wrong one.
    """
    key_holder = KeyHolder(ring, file)
    keys = await asyncio.to_thread(_keys_in_file, state)
    if keys is not None:
        key_holder.follow(keys)
    for key_in_use in key_holder.ring.missing:
        key = await fetch_at_start(others, tls, key_in_use, timeout_s=FETCH_S)
        if key is None or not key_holder.take(key_in_use, key):
            raise KeyRingError(
                f"{file.path}: lacks key {key_in_use.key_id}, which the cluster uses, and no "
                "other member could provide it: start another member first, or copy "
                "the key ring of a running one"
            )
        log.info("key_fetched", extra={"key_id": key_in_use.key_id})
        file.save(key_holder.ring)
    return key_holder


def _keys_in_file(state: Path) -> KeysInState | None:
    """Return the keys that a state uses; None: there is no state, or an empty file."""
    if not state.exists():
        return None
    uri = read_only_uri(state)
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        known = db.execute(
            "SELECT 1 FROM sqlite_schema WHERE name = 'ring_keys'"
        ).fetchone()
        return key_tables.keys_of(db) if known else None

# SPDX-License-Identifier: Apache-2.0
"""The real state machine on a database that a power cut takes back."""

import abc
import collections
import random
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import KeyId, NodeId
from sparecode_node.domain.keys import KeysInState
from sparecode_node.domain.membership import MemberKey
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.skipping import SkippedEntry
from sparecode_node.statemachine.snapshots import SnapshotFacts, read_facts
from sparecode_node.statemachine.tables import keys as key_tables
from tests.simulation.disk import Disk
from tests.simulation.people import KEY, ROOT, Keys
from tests.simulation.sealed import SealedFile
from tests.simulation.state_connection import StateConnection

DAMAGED = "a damaged database"
"""In place of a digest: the state of this node cannot be read."""

KEPT = 30
"""Commits that a power cut may take back: SQLite's WAL is not synced by each."""


class MachineStore(abc.ABC):
    """The real state machine of one machine. It outlives restarts of the process."""

    db: sqlite3.Connection
    machine: StateMachine

    @property
    def state(self) -> "MachineStore":
        return self

    @property
    def applied_index(self) -> int:
        return self.machine.applied_index

    @property
    def now_ms(self) -> int:
        return self.machine.now_ms

    @property
    def feature_level(self) -> int:
        return self.machine.feature_level

    @property
    def skipped(self) -> tuple[SkippedEntry, ...]:
        return self.machine.skipped

    @property
    def member_keys(self) -> Mapping[NodeId, MemberKey]:
        return self.machine.member_keys

    def denies(self, certificate: Certificate) -> bool:
        return self.machine.denies(certificate)

    def skip(self, entry: SkippedEntry, calls: Sequence[Call]) -> tuple[Result, ...]:
        return self.machine.skip(entry, calls)

    def apply(self, index: int, calls: Sequence[Call]) -> tuple[Result, ...]:
        return self.machine.apply(index, calls)

    def applied(self) -> dict[str, int]:
        """Return request id -> index of what is remembered."""
        rows = self.db.execute("SELECT request_id, result ->> 'index' FROM requests")
        return {request: int(index) for request, index in rows if index is not None}

    def digest(self) -> str:
        """Return the state's digest, or `DAMAGED`. Other errors of SQLite are raised."""
        try:
            return self.machine.digest()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            return DAMAGED

    def facts(self, body: bytes) -> SnapshotFacts:
        """Read a whole snapshot, with the product's code. Raises `SnapshotError`."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            return read_facts(Path(file.name))

    def auth_version(self, user: str) -> int:
        """Return the version that candidates are computed with."""
        row = self.db.execute(
            "SELECT auth_version FROM users WHERE user_id = ?", (user,)
        ).fetchone()
        return int(row[0]) if row else 0

    def keys(self) -> KeysInState:
        """Return the keys that the state uses."""
        return key_tables.keys_of(self.db)

    def keys_for(self, user: str, set_id: str) -> Keys:
        """Return the keys that candidates are computed with."""
        tag = self.db.execute(
            "SELECT name_tag FROM users WHERE user_id = ?", (user,)
        ).fetchone()
        key = self.db.execute(
            "SELECT key_id FROM code_sets WHERE set_id = ?", (set_id,)
        ).fetchone()
        active = self.keys().active or KEY
        return Keys(active, KeyId(key[0]) if key else active, tag[0] if tag else b"")

    def password_key(self) -> KeyId:
        """Return the key of the administrator's password."""
        row = self.db.execute(
            "SELECT key_id FROM administrators WHERE name = ?", (ROOT,)
        ).fetchone()
        return KeyId(row[0]) if row else KEY

    @abc.abstractmethod
    def start(self, disk: Disk) -> None:
        """Open what is committed, as a process does that has just been started."""

    @abc.abstractmethod
    def checkpoint(self) -> int:
        """Return the durable index."""

    @abc.abstractmethod
    def serialize(self) -> bytes:
        """Return a snapshot."""

    @abc.abstractmethod
    def install(self, body: bytes) -> None:
        """Become what a snapshot holds, durably; the process does not know it yet."""

    @abc.abstractmethod
    def reload(self) -> None:
        """Let the process know what it has installed."""

    @abc.abstractmethod
    def die(self) -> None:
        """End the process in the middle of something."""

    @abc.abstractmethod
    def lose_power(self, rng: random.Random) -> None:
        """Go back to what the disk has."""

    @abc.abstractmethod
    def copy(self) -> "MachineStore":
        """Return a store with the same content."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the database."""


class SqliteStore(MachineStore):
    """A database in memory. A power cut takes it back to an earlier commit."""

    db: StateConnection

    def __init__(self) -> None:
        self._images: collections.deque[bytes] = collections.deque(maxlen=KEPT)
        self.sealed = SealedFile()
        """Its writes are synced, so a power cut takes nothing of it back."""
        self.db = _connect(None)

    @classmethod
    def of(cls, image: bytes) -> "SqliteStore":
        """Return a store with the state of a backup."""
        store = cls()
        store._images.append(image)
        return store

    def start(self, disk: Disk) -> None:
        image = self._images[-1] if self._images else None
        self.db.close()
        self.db = _connect(image)
        self.machine = StateMachine(self.db)
        self.db.watch(disk, self._images)

    def committed(self) -> bytes:
        """Return the database as its last commit left it: what readers see."""
        return self._images[-1]

    def serialize(self) -> bytes:
        return self.db.serialize()

    def checkpoint(self) -> int:
        return self.machine.checkpoint()

    def copy(self) -> "SqliteStore":
        other = SqliteStore()
        other._images.extend(self._images)
        other.sealed.close()
        other.sealed = SealedFile(self.sealed.serialize())
        return other

    def close(self) -> None:
        self.db.close()
        self.sealed.close()

    def install(self, body: bytes) -> None:
        """Become what a snapshot holds, by SQLite's backup as in production."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            self.machine.install(file.name)
        self._images.clear()
        self.db.keep()

    def reload(self) -> None:
        self.machine.reload()

    def die(self) -> None:
        """Do nothing: what is not committed is lost."""

    def lose_power(self, rng: random.Random) -> None:
        """Go back to one of the commits since the last checkpoint."""
        if self._images:
            back = rng.choice([0, 0, rng.randrange(len(self._images))])
            for _ in range(back):
                self._images.pop()


def _connect(image: bytes | None) -> StateConnection:
    db: StateConnection = sqlite3.connect(":memory:", factory=StateConnection)
    if image is not None:
        db.deserialize(image)
    return db

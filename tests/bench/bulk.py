# SPDX-License-Identifier: Apache-2.0
"""
The fast path to large estates: rows as apply would write them, without apply.

`FastBuilder` adds users, and `History` years of authentications. A test compares both
with the state machine: the same digest, the same events, the same segments.
"""

import collections
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from local_cluster.cluster import AGENT, LocalCluster

from sparecode_node.domain.audit import GENESIS_HASH
from sparecode_node.domain.ids import (
    AgentIdentity,
    Moment,
    NodeId,
    RequestId,
    SessionId,
    TokenSerial,
)
from sparecode_node.domain.passcodes import PinCandidate, Reading, TokencodeMatch
from sparecode_node.domain.slots import slot_of
from sparecode_node.domain.users import fold
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine import audit, feature_level, sealed_events
from sparecode_node.statemachine.commands import Call, Command, RequestKey
from sparecode_node.statemachine.commands.authentication import Authenticate
from sparecode_node.statemachine.commands.cluster import RaiseFeatureLevel
from sparecode_node.statemachine.handlers.policy import find_policy
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.requests import REQUESTS_TIME, due_before
from sparecode_node.statemachine.results import Authenticated, Decision
from sparecode_node.statemachine.sealed_events import COLUMNS
from sparecode_node.statemachine.tables import meta, request_counts, segments
from tests.bench.population import (
    ADMINISTRATOR,
    CALLS_PER_ENTRY,
    CODES_EACH,
    STEP_MS,
    Builder,
    Population,
    PopulationError,
    fingerprint_seeds,
    hand_over,
    index_names,
    pin_verifier,
    store_sealed,
    user_id,
)

NODE = NodeId("n1")
IDENTITY = AgentIdentity(f"sparecode://agent/{AGENT}")
CLIENT = "203.0.113.7"
RESOURCE = "ssh://build.example.org"
TIMESTEP_MS = 30_000
USER_COLUMNS = (
    "users (user_id, username, name_key, name_tag, display_name, email, enabled, "
    "auth_version, pin_salt, code_salt, tag_key_id, slot)"
)
"""Without those of later levels, which have defaults."""
HISTORY_MS = 24 * 3600 * 1000
PIN_CHANGE_MS = 24 * 3600 * 1000
INSERT_EVENT = (
    f"INSERT INTO audit_events ({COLUMNS}) "  # noqa: S608 - no value is in it.
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

Row = tuple[object, ...]
"""A row of `audit_events`."""


class Chain:
    """The end of the audit log, for rows without `"`, backslashes and special letters."""

    def __init__(self, db: sqlite3.Connection) -> None:
        row = db.execute(
            "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        self.sequence: int = row[0] if row else 0
        self.head: bytes = row[1] if row else GENESIS_HASH

    def add(
        self,
        at_ms: int,
        actor: str,
        action: str,
        target: str,
        outcome: str,
        detail: str,
    ) -> Row:
        """Return the next event as a row. It is canonical JSON, made without an encoder."""
        self.sequence += 1
        content = (
            f'{{"action":"{action}","actor":"{actor}","at_ms":{at_ms},'
            f'"detail":"{detail}","node":"{NODE}","outcome":"{outcome}","reason":"",'
            f'"sequence":{self.sequence},"target":"{target}"}}'
        )
        self.head = hashlib.sha256(self.head + content.encode()).digest()
        return (
            *(self.sequence, at_ms, actor, NODE, action, target, outcome, "", detail),
            self.head,
        )


class FastBuilder(Builder):
    """Builds the users of an estate without the state machine; it applies all else."""

    _requests_left: "collections.deque[tuple[int, Row]]"

    def build(self) -> None:
        self._requests_left = collections.deque()
        super().build()

    def _finish(self) -> None:
        self._remember()
        super()._finish()

    def _remember(self) -> None:
        """Insert the requests that are not due yet."""
        policy = find_policy(self._db)
        assert policy is not None
        due = due_before(self._at_ms, policy)
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT INTO requests "
            "(caller, method, request_id, tag, at_ms, result) VALUES (?, ?, ?, 0, ?, ?)",
            (row for at_ms, row in self._requests_left if at_ms >= due),
        )
        self._db.execute("DELETE FROM requests WHERE at_ms < ?", (due,))
        request_counts.drop(self._db)  # The next state machine counts them.
        self._db.execute("COMMIT")

    def _add(self, numbers: range) -> None:
        self._db.execute("BEGIN")
        self._index, self._chain = self._state.applied_index, Chain(self._db)
        self._insert(USER_COLUMNS, map(self._user_row, numbers))
        self._insert("tokens", map(self._token_row, numbers))
        for part in self._entries(numbers):
            self._note("CreateUser", [self._population.username(n) for n in part])
        for part in self._entries(numbers):
            self._note("EnrollToken", [self._population.serial(n) for n in part])
        for part in self._entries(numbers):
            self._note(
                "AssignToken",
                [self._population.serial(n) for n in part],
                [f"to {self._population.username(n)}" for n in part],
            )
        for part in self._entries(numbers):
            self._note("SetPin", [self._population.serial(n) for n in part])
            self._insert(
                "pin_changes",
                [
                    (
                        self._population.serial(n),
                        ADMINISTRATOR,
                        self._at_ms + PIN_CHANGE_MS,
                    )
                    for n in part
                ],
            )
        owners = list(filter(self._population.has_codes, numbers))
        for part in self._entries(owners):
            self._save_codes(list(part))
        meta.write(self._db, "applied_index", self._index)
        meta.write(self._db, "now_ms", self._at_ms)
        self._db.execute("COMMIT")
        self._state.reload()

    def _entries(self, numbers: range | list[int]) -> Iterator[range | list[int]]:
        for at in range(0, len(numbers), CALLS_PER_ENTRY):
            self._at_ms += STEP_MS
            self._index += 1
            yield numbers[at : at + CALLS_PER_ENTRY]

    def _note(
        self,
        action: str,
        targets: list[str],
        details: list[str] | None = None,
        results: list[str] | None = None,
    ) -> None:
        """Add the events and requests of one entry."""
        details = details or [""] * len(targets)
        actor = f"administrator:{ADMINISTRATOR}"
        self._db.executemany(
            INSERT_EVENT,
            [
                self._chain.add(self._at_ms, actor, action, target, "applied", detail)
                for target, detail in zip(targets, details, strict=True)
            ],
        )
        result = f'{{"type":"Applied","index":{self._index}}}'
        for each in results or [result] * len(targets):
            self._requests += 1
            row = (actor, action, f"{self._requests:036d}", self._at_ms, each)
            self._requests_left.append((self._at_ms, row))
        policy = find_policy(self._db)
        assert policy is not None
        due = due_before(self._at_ms, policy)
        while self._requests_left[0][0] < due:
            self._requests_left.popleft()

    def _insert(self, table: str, rows: "Iterator[Row] | list[Row]") -> None:
        first, *others = rows
        places = ", ".join("?" * len(first))
        self._db.executemany(
            f"INSERT INTO {table} VALUES ({places})",  # noqa: S608
            (first, *others),
        )

    def _user_row(self, number: int) -> Row:
        user = self._user(number)
        return (
            *(user.user_id, user.username, user.name_key, user.name_tag),
            *(user.display_name, user.email, 1),
            4 if self._population.has_codes(number) else 3,
            *(user.pin_salt, user.code_salt, user.key_id, slot_of(user.name_key)),
        )

    def _token_row(self, number: int) -> Row:
        token, pin = self._token(number), self._pin(number)
        return (
            *(token.serial, "totp", "sha1", 6, 30, token.sealed_seed, token.key_id),
            *("prepended", None, 1, user_id(number), pin.verifier, pin.key_id, -1, 0),
            *(int(self._population.has_codes(number)), "deny", b"", 0, 0, -1),
        )

    def _save_codes(self, numbers: list[int]) -> None:
        saved = [self._codes(number, 3) for number in numbers]
        self._note(
            "SaveEmergencyAccess",
            [each.serial for each in saved],
            [f"set {each.set_id}: {CODES_EACH} codes, deny" for each in saved],
            [
                f'{{"type":"EmergencyAccessSaved","index":{self._index},'
                f'"at_ms":{self._at_ms},"set_id":"{each.set_id}","codes":{CODES_EACH},'
                f'"live_codes":{CODES_EACH},"voided_codes":0,"ends_at_ms":null,'
                '"pin_missing_warning":false}'
                for each in saved
            ],
        )
        self._insert(
            "code_sets",
            [
                (
                    *(None, each.set_id, each.serial, each.key_id, each.code_length),
                    *(ADMINISTRATOR, NODE, self._at_ms, self._index, None, 0, 0),
                )
                for each in saved
            ],
        )
        self._insert(
            "codes",
            [
                (each.set_id, code.ordinal, code.verifier, "live", *(None,) * 4)
                for each in saved
                for code in each.codes
            ],
        )


class History:
    """
    Authentications of users with their own tokens, spread evenly over a time.

    The state is at the newest feature level afterwards, with all sealed events in the
    file beside it.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        state: Path,
        population: Population,
        *,
        events: int,
        begin_ms: int,
        end_ms: int,
    ) -> None:
        self._state, self._population = state, population
        self._events, self._begin_ms = events, begin_ms
        self._each_ms = (end_ms - begin_ms) / events
        self._sealing = Sealing(KeyRing.load(cluster.nodes[0].key_ring))
        self._owners = [
            number
            for number in population.signing_in
            if not population.has_codes(number)
        ]
        if self._each_ms * len(self._owners) < 2 * TIMESTEP_MS:
            raise PopulationError("a token shows each tokencode for half a minute")
        self._pins: dict[int, bytes] = {}

    def apply(self) -> None:
        """Let the state machine decide each authentication."""
        with contextlib.closing(self._open()) as db:
            machine = self._at_newest_level(db)
            self._apply(machine, range(self._events))
        store_sealed(self._state)

    def write(self) -> None:
        """Write most of it without the state machine, which decides the last ones."""
        with contextlib.closing(self._open()) as db:
            machine = self._at_newest_level(db)
            (events,) = db.execute("SELECT max(sequence) FROM audit_events").fetchone()
            # One event seals one segment of those that were there before.
            head = events // audit.SEGMENT_EVENTS + 1
            policy = find_policy(db)
            assert policy is not None
            tail = int(2 * policy.request_retention_ms / self._each_ms) + 8
            if head + tail > self._events:
                raise PopulationError(f"a history has at least {head + tail} events")
            self._apply(machine, range(head))
        store_sealed(self._state)
        with contextlib.closing(self._open()) as db:
            self._write(db, range(head, self._events - tail))
        with contextlib.closing(self._open()) as db:
            self._apply(StateMachine(db), range(self._events - tail, self._events))
        store_sealed(self._state)

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._state, isolation_level=None)
        db.execute("PRAGMA synchronous = OFF")  # It can be built again.
        return db

    def _at_ms(self, number: int) -> int:
        return self._begin_ms + int(number * self._each_ms)

    def _id(self, number: int) -> str:
        text = hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def _at_newest_level(self, db: sqlite3.Connection) -> StateMachine:
        machine = StateMachine(db)
        command = RaiseFeatureLevel(level=feature_level.NEWEST)
        self._call(machine, f"node:{NODE}", "level", command, self._begin_ms)
        fingerprint_seeds(db, self._sealing, self._population)
        return machine

    def _call(
        self,
        machine: StateMachine,
        caller: str,
        request_id: str,
        command: Command,
        at_ms: int,
    ) -> object:
        key = RequestKey(
            caller=caller,
            method=type(command).__name__,
            request_id=RequestId(request_id),
            tag=0,
        )
        call = Call(
            command=command,
            request=key,
            node_id=NODE,
            session_id=SessionId(""),
            at_ms=at_ms,
        )
        (result,) = machine.apply(machine.applied_index + 1, (call,))
        return result

    def _apply(self, machine: StateMachine, numbers: range) -> None:
        policy = find_policy(machine._db)
        assert policy is not None
        for number in numbers:
            command = self._authenticate(number, policy.version)
            result = self._call(
                machine,
                f"agent:{IDENTITY}",
                self._id(number),
                command,
                self._at_ms(number),
            )
            if (
                not isinstance(result, Authenticated)
                or result.decision is not Decision.ACCEPTED
            ):
                raise PopulationError(f"an authentication was not accepted: {result}")

    def _moment(self, number: int) -> Moment:
        return Moment(self._at_ms(number) // TIMESTEP_MS)

    def _authenticate(self, number: int, policy_version: int) -> Authenticate:
        owner = self._owners[number % len(self._owners)]
        serial = TokenSerial(self._population.serial(owner))
        if owner not in self._pins:
            self._pins[owner] = pin_verifier(self._sealing, self._population, owner)
        key_id = self._sealing.active_key
        name = fold(self._population.username(owner))
        return Authenticate(
            authentication_id=self._id(number),
            agent=IDENTITY,
            name_tag=self._sealing.name_tag(name, key_id),
            user_id=user_id(owner),
            auth_version=3,
            policy_version=policy_version,
            key_id=key_id,
            lettered=False,
            readings=(
                Reading(
                    length=6,
                    emergency=False,
                    bare=False,
                    pins=(PinCandidate(serial=serial, verifier=self._pins[owner]),),
                    codes=(),
                    tokencodes=(
                        TokencodeMatch(serial=serial, moment=self._moment(number)),
                    ),
                ),
            ),
            client_address=CLIENT,
            resource=RESOURCE,
        )

    def _write(self, db: sqlite3.Connection, numbers: range) -> None:
        """Write authentications as rows: events, segments, and what stays in the state."""
        last = segments.last_sealed(db)
        chain = Chain(db)
        hash_before: object = last.hash_after if last else GENESIS_HASH
        number = last.number if last else 0
        pending: list[Row] = db.execute(
            f"SELECT {COLUMNS} FROM audit_events WHERE sequence > ?",  # noqa: S608
            (last.last_sequence if last else 0,),
        ).fetchall()
        db.execute("BEGIN")
        with _file_in_bulk(self._state) as file:
            for row in self._rows(chain, numbers):
                pending.append(row)
                if len(pending) < audit.SEGMENT_EVENTS:
                    continue
                number += 1
                ends = pending[0], pending[-1]
                file.executemany(INSERT_EVENT, pending)
                file.execute(
                    "INSERT INTO stored_segments VALUES (?, ?)", (number, row[-1])
                )
                db.execute(
                    "INSERT INTO audit_segments VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(number, ends[0][0], ends[1][0], ends[0][1], ends[1][1]),
                        *(hash_before, row[-1]),
                    ),
                )
                hash_before, newest = row[-1], row
                pending.clear()
        db.execute("DELETE FROM audit_events")
        # The newest event stays in any case: the next one continues its chain.
        db.executemany(INSERT_EVENT, pending or [newest])
        self._follow(db, numbers)
        db.execute("COMMIT")

    def _rows(self, chain: Chain, numbers: range) -> Iterator[Row]:
        owners = [
            (self._population.username(owner), self._population.serial(owner))
            for owner in self._owners
        ]
        actor = f"agent:{IDENTITY}"
        for number in numbers:
            username, serial = owners[number % len(owners)]
            yield chain.add(
                self._at_ms(number),
                actor,
                "Authenticate",
                username,
                "accepted",
                f"authentication {self._id(number)}, token {serial}, factor token, "
                f"client {CLIENT}, resource {RESOURCE}",
            )

    def _follow(self, db: sqlite3.Connection, numbers: range) -> None:
        """Write what the last authentication of each token leaves in the state."""
        for number in numbers[-len(self._owners) :]:
            owner = self._owners[number % len(self._owners)]
            db.execute(
                "UPDATE tokens SET spent = ? WHERE serial = ?",
                (self._moment(number), self._population.serial(owner)),
            )
        at_ms = self._at_ms(numbers[-1])
        index = meta.read(db, "applied_index", 0) + len(numbers)
        meta.write(db, "applied_index", index)
        meta.write(db, "now_ms", at_ms)
        meta.write(db, REQUESTS_TIME, at_ms)
        # The last authentications, which are applied, take longer than the retention.
        db.execute("DELETE FROM requests")


def populate_by_rows(cluster: LocalCluster, population: Population) -> None:
    """
    Give an estate of any size to a cluster that was set up and is stopped.

    It is at the newest feature level, and each node has all sealed events.
    """
    path = cluster.directory / "estate.db"
    now_ms = time.time_ns() // 1_000_000
    begin_ms = now_ms - HISTORY_MS
    FastBuilder(cluster, path, population, until_ms=begin_ms).build()
    events = population.users * 5 // audit.SEGMENT_EVENTS + 1000
    History(
        cluster, path, population, events=events, begin_ms=begin_ms, end_ms=now_ms
    ).write()
    index_names(path)
    hand_over(cluster, path)


@contextlib.contextmanager
def _file_in_bulk(state: Path) -> Iterator[sqlite3.Connection]:
    """Open the file of sealed events for many rows; its indexes are built at the end."""
    path = sealed_events.file_of(state)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA journal_mode = DELETE").fetchall()
        file.execute("PRAGMA journal_mode = OFF").fetchall()
        file.execute("PRAGMA synchronous = OFF")
        file.execute("PRAGMA cache_size = -200000")
        indexes = file.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql != ''"
        ).fetchall()
        for name, _ in indexes:
            file.execute(f"DROP INDEX {name}")
        file.execute("BEGIN")
        yield file
        file.execute("COMMIT")
        for _, sql in indexes:
            file.execute(sql)
        file.execute("PRAGMA journal_mode = WAL").fetchall()

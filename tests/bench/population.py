# SPDX-License-Identifier: Apache-2.0
"""
An estate of any size, made without the cluster: users, tokens, PINs, live codes.

The real state machine applies the real commands, in batches. The nodes then get
the state as a snapshot whose installation a crash has interrupted, and complete
it at their next start. A million codes take minutes instead of hours.
"""

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sqlite3
import time
from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyotp
from local_cluster.cluster import AGENT, LocalCluster
from rich.progress import track

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import (
    AdministratorName,
    AgentIdentity,
    KeyId,
    NodeId,
    RequestId,
    SessionId,
    SetId,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.domain.users import fold
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.log.format import Identity
from sparecode_node.replication.log.journal import open_journal
from sparecode_node.replication.log.storage import DirectoryStorage
from sparecode_node.replication.members import Configuration, Member
from sparecode_node.replication.snapshots.store import (
    WRITTEN,
    Manifest,
    SnapshotStore,
)
from sparecode_node.services.secrets.kdf import PROFILES, KdfInput, Secret, hashed
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine import audit, feature_level
from sparecode_node.statemachine.commands import Call, Command, RequestKey
from sparecode_node.statemachine.commands.agents import RegisterAgent
from sparecode_node.statemachine.commands.cluster import (
    InitializeCluster,
    NoteRefusedCalls,
    RaiseFeatureLevel,
)
from sparecode_node.statemachine.commands.emergency_access import (
    SaveEmergencyAccess,
    SealedCode,
)
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.commands.sessions import OpenSession
from sparecode_node.statemachine.commands.tokens import (
    AssignToken,
    EnrollToken,
    SeedFingerprint,
    SetPin,
)
from sparecode_node.statemachine.commands.users import CreateUser
from sparecode_node.statemachine.handlers.policy import find_policy
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.sealed_events import SealedEvents, create, file_of
from sparecode_node.statemachine.snapshots import write_snapshot
from sparecode_node.statemachine.tables import meta, segments

PIN = "4719"
CODES_EACH = 14
CALLS_PER_ENTRY = 128
USERS_AT_ONCE = 512
CHECKPOINT_USERS = 16 * USERS_AT_ONCE
VERIFIER_BYTES = 48
REQUESTS_MAX = 2_000_000
STEP_MS = 1000
"""Time between two entries, so that earlier request ids expire meanwhile."""
ADMINISTRATOR = AdministratorName("admin")


class PopulationError(Exception):
    """The state machine refused a command of the estate."""


@dataclass(frozen=True, kw_only=True)
class Population:
    """The users, tokens and codes of an estate, computed from their numbers."""

    users: int
    profile: str
    own_token_each: int = 4
    """One user in *own_token_each* uses the token; the tokens of the others are lost."""
    usable: int | None = None
    """
    The number of users who can sign in, the first ones; None: all can.

    The verifiers of the others are of no PIN and of no code: hashing takes half the time
    of a build.
    """

    @property
    def signing_in(self) -> range:
        """The numbers of the users who can sign in."""
        return range(self.users if self.usable is None else self.usable)

    def username(self, number: int) -> str:
        """Return the name of a user, counted from 0."""
        return f"user{number:06d}"

    def serial(self, number: int) -> str:
        """Return the serial of the user's token."""
        return f"{number:012d}"

    def seed(self, number: int) -> bytes:
        """Return the seed of the user's token."""
        return hashlib.sha256(f"seed {number}".encode()).digest()[:20]

    def code(self, number: int, ordinal: int) -> str:
        """Return one of the user's emergency codes, with a letter and a digit."""
        text = hashlib.sha256(f"code {number} {ordinal}".encode()).hexdigest()
        symbols = "ABCDEFGHJKMNPQRSTUVWXYZ"
        drawn = [symbols[int(text[k : k + 2], 16) % len(symbols)] for k in range(16)]
        return "".join(drawn[:7]) + "7"

    def tokencode(self, number: int, at_s: float) -> str:
        """Return the tokencode that the user's token shows at *at_s*."""
        secret = base64.b32encode(self.seed(number)).decode()
        return pyotp.TOTP(secret, digits=6, interval=30).at(int(at_s))

    @property
    def codes(self) -> int:
        """The number of live codes."""
        return sum(map(self.has_codes, range(self.users))) * CODES_EACH

    def has_codes(self, number: int) -> bool:
        """Return whether the user's token is lost and has codes."""
        return number % self.own_token_each != self.own_token_each - 1


class Builder:
    """Applies commands to a separate state, outside any cluster."""

    def __init__(
        self,
        cluster: LocalCluster,
        path: Path,
        population: Population,
        *,
        until_ms: int | None = None,
    ) -> None:
        """*until_ms*: when the last user is there, roughly; None: now."""
        self._population = population
        self._path = path
        self._db = sqlite3.connect(path)
        # Nothing is lost: it can be rebuilt. Rows go to all places of the indexes.
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA cache_size = -400000")
        self._state = StateMachine(self._db)
        self._state.apply(1, ())  # The first entry of every log.
        ring = KeyRing.load(cluster.nodes[0].key_ring)
        self._sealing = Sealing(ring)
        self._founding = json.loads(
            (cluster.nodes[0].directory / "data" / "bootstrap.json").read_text()
        )
        self._requests = 0
        self._session = SessionId("")
        entries = population.users * 5 // CALLS_PER_ENTRY + 1000
        self._at_ms = (until_ms or time.time_ns() // 1_000_000) - entries * STEP_MS
        self._kdf = PROFILES[population.profile]
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._policy_version = 0

    def build(self) -> None:
        """Build the whole estate."""
        founding = self._founding
        verifier = b64decode(founding["password_verifier"])
        self._apply(
            [
                InitializeCluster(
                    cluster_id=founding["cluster_id"],
                    administrator=AdministratorName(founding["administrator"]),
                    password_salt=b64decode(founding["password_salt"]),
                    password_verifier=verifier,
                    key_id=KeyId(founding["key_id"]),
                )
            ]
        )
        self._sign_in(verifier)
        if policy := find_policy(self._db):
            # A few minutes of load make more calls than the default remembers.
            unchanged = dict.fromkeys(
                field.name for field in dataclasses.fields(UpdatePolicy)
            )
            self._apply(
                [
                    UpdatePolicy(
                        **unchanged
                        | {"version": policy.version, "requests_max": REQUESTS_MAX}
                    )
                ]
            )
            self._policy_version = policy.version + 1
        self._apply(
            [
                RegisterAgent(
                    name=AGENT,
                    name_key=fold(AGENT),
                    identity=AgentIdentity(f"sparecode://agent/{AGENT}"),
                    protects=Protects.AUTHENTICATION_MANAGER,
                )
            ]
        )
        everybody = range(self._population.users)
        for chunk in track(
            [
                everybody[at : at + USERS_AT_ONCE]
                for at in range(0, len(everybody), USERS_AT_ONCE)
            ],
            description=f"{self._population.users} users",
            transient=True,
        ):
            self._sign_in(verifier)
            self._add(chunk)
            if chunk.start % CHECKPOINT_USERS == 0:
                self._state.checkpoint()  # In a long log, SQLite looks pages up slowly.
        self._finish()

    def _finish(self) -> None:
        self._pool.shutdown()
        self._state.checkpoint()
        self._db.close()

    def _add(self, numbers: range) -> None:
        """Add users, each with a token, a PIN and live codes."""
        self._apply([self._user(number) for number in numbers])
        self._apply([self._token(number) for number in numbers])
        population = self._population
        self._apply(
            [
                AssignToken(
                    serial=TokenSerial(population.serial(number)),
                    name_key=fold(population.username(number)),
                )
                for number in numbers
            ]
        )
        self._apply(list(self._pool.map(self._pin, numbers)))
        versions = dict(
            self._db.execute(
                "SELECT user_id, auth_version FROM users WHERE user_id BETWEEN ? AND ?",
                (user_id(numbers[0]), user_id(numbers[-1])),
            )
        )
        self._apply(
            list(
                self._pool.map(
                    lambda number: self._codes(number, versions[user_id(number)]),
                    filter(population.has_codes, numbers),
                )
            )
        )

    def _user(self, number: int) -> CreateUser:
        name = self._population.username(number)
        return CreateUser(
            user_id=user_id(number),
            username=name,
            name_key=fold(name),
            name_tag=self._sealing.name_tag(fold(name), self._sealing.active_key),
            key_id=self._sealing.active_key,
            display_name=f"User {number}",
            email=f"{name}@example.org",
            pin_salt=_salt("pin", number),
            code_salt=_salt("code", number),
        )

    def _token(self, number: int) -> EnrollToken:
        serial = TokenSerial(self._population.serial(number))
        seed = self._population.seed(number)
        return EnrollToken(
            serial=serial,
            algorithm=Algorithm.TOTP,
            hash_name=HashName.SHA1,
            digits=6,
            period_s=30,
            counter=0,
            sealed_seed=self._sealing.seal_seed(serial, seed, self._sealing.active_key),
            key_id=self._sealing.active_key,
            pin_rule=PinRule.PREPENDED,
            expires_at_ms=None,
            fingerprints=tuple(
                SeedFingerprint(key_id=key_id, value=value)
                for key_id, value in self._sealing.seed_fingerprints(seed)
            ),
        )

    def _pin(self, number: int) -> SetPin:
        population = self._population
        serial = TokenSerial(population.serial(number))
        return SetPin(
            serial=serial,
            user_id=user_id(number),
            verifier=pin_verifier(self._sealing, population, number)
            if number in population.signing_in
            else _of_nothing(number),
            key_id=self._sealing.active_key,
            policy_version=self._policy_version,
        )

    def _codes(self, number: int, auth_version: int) -> SaveEmergencyAccess:
        return SaveEmergencyAccess(
            serial=TokenSerial(self._population.serial(number)),
            user_id=user_id(number),
            auth_version=auth_version,
            policy_version=self._policy_version,
            key_id=self._sealing.active_key,
            set_id=_set_id(number),
            code_length=8,
            codes=tuple(
                SealedCode(
                    ordinal=ordinal,
                    verifier=self._code_verifier(number, ordinal)
                    if number in self._population.signing_in
                    else _of_nothing(number, ordinal),
                )
                for ordinal in range(1, CODES_EACH + 1)
            ),
            ends_at_ms=None,
            lifetime_ms=None,
            recovery=RecoveryPolicy.DENY,
            keep_unused_codes=False,
            weaken_recovery_policy=False,
            draft_id="",
            draft_ends_at_ms=0,
        )

    def _code_verifier(self, number: int, ordinal: int) -> bytes:
        return self._sealing.code_verifier(
            hashed(
                self._kdf,
                KdfInput(
                    secret=Secret.CODE,
                    salt=_salt("code", number),
                    text=self._population.code(number, ordinal),
                ),
            ),
            user_id(number),
            _set_id(number),
            self._sealing.active_key,
        )

    def _sign_in(self, verifier: bytes) -> None:
        """Open a session; a single one would expire during the build."""
        self._requests += 1
        self._session = SessionId(
            hashlib.sha256(f"session {self._requests}".encode()).hexdigest()
        )
        version = self._db.execute("SELECT version FROM administrators").fetchone()[0]
        self._apply(
            [
                OpenSession(
                    administrator=ADMINISTRATOR,
                    candidate=verifier,
                    administrator_version=version,
                    key_id=self._sealing.active_key,
                    session_id=self._session,
                )
            ],
            session=SessionId(""),
        )

    def _apply(
        self, commands: Sequence[Command], *, session: SessionId | None = None
    ) -> None:
        """Apply commands in entries, as from the log."""
        for at in range(0, len(commands), CALLS_PER_ENTRY):
            self._at_ms += STEP_MS
            calls = [
                self._call(command, self._session if session is None else session)
                for command in commands[at : at + CALLS_PER_ENTRY]
            ]
            for result in self._state.apply(self._state.applied_index + 1, calls):
                if isinstance(result, Rejected):
                    raise PopulationError(f"the estate cannot be built: {result}")

    def _call(self, command: Command, session: SessionId) -> Call:
        self._requests += 1
        return Call(
            command=command,
            request=RequestKey(
                caller=f"administrator:{ADMINISTRATOR}",
                method=type(command).__name__,
                request_id=RequestId(f"{self._requests:036d}"),
                tag=0,
            ),
            node_id=NodeId("n1"),
            session_id=session,
            at_ms=self._at_ms,
        )


def pin_verifier(sealing: Sealing, population: Population, number: int) -> bytes:
    """Return the verifier of the PIN of a user's token."""
    text = KdfInput(secret=Secret.PIN, salt=_salt("pin", number), text=PIN)
    return sealing.pin_verifier(
        hashed(PROFILES[population.profile], text),
        user_id(number),
        TokenSerial(population.serial(number)),
        sealing.active_key,
    )


def user_id(number: int) -> UserId:
    """Return the id of a user, counted from 0."""
    return UserId(f"user-{number:06d}")


def _set_id(number: int) -> SetId:
    return SetId(f"set-{number:06d}")


def _of_nothing(*numbers: int) -> bytes:
    """Return a verifier that no PIN and no code has."""
    return hashlib.shake_256(f"nothing {numbers}".encode()).digest(VERIFIER_BYTES)


def _salt(purpose: str, number: int) -> bytes:
    return hashlib.sha256(f"{purpose} {number}".encode()).digest()[:16]


def populate(cluster: LocalCluster, population: Population) -> None:
    """
    Give an estate to a cluster that was set up and is stopped.

    Each node gets the state, and a snapshot of it, as after a crash during the
    installation. At its start the node begins its log after the snapshot.
    """
    path = cluster.directory / "estate.db"
    path.unlink(missing_ok=True)
    Builder(cluster, path, population).build()
    settle(cluster, path, population)
    store_sealed(path)
    index_names(path)
    hand_over(cluster, path)


def settle(cluster: LocalCluster, path: Path, population: Population) -> None:
    """
    Raise a state to the newest feature level, and do what nodes do in the background.

    Otherwise they would do so while they are measured.
    """
    sealing = Sealing(KeyRing.load(cluster.nodes[0].key_ring))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        machine = StateMachine(db)

        def apply(command: Command) -> None:
            number = machine.applied_index + 1
            key = RequestKey(
                caller="node:n1",
                method=type(command).__name__,
                request_id=RequestId(f"seal {number}"),
                tag=0,
            )
            call = Call(
                command=command,
                request=key,
                node_id=NodeId("n1"),
                session_id=SessionId(""),
                at_ms=meta.read(db, "now_ms", 0),
            )
            (result,) = machine.apply(number, (call,))
            if isinstance(result, Rejected):
                raise PopulationError(f"the state cannot be sealed: {result}")

        apply(RaiseFeatureLevel(level=feature_level.NEWEST))
        fingerprint_seeds(db, sealing, population)
        while _unsealed(db) >= audit.SEGMENT_EVENTS:  # Each event seals one segment.
            apply(NoteRefusedCalls(actor="", method="none", reason="none", count=1))


def _unsealed(db: sqlite3.Connection) -> int:
    """Return the number of events after the last sealed segment."""
    (last,) = db.execute("SELECT max(sequence) FROM audit_events").fetchone()
    segment = segments.last_sealed(db)
    return int(last) - (segment.last_sequence if segment else 0)


def fingerprint_seeds(
    db: sqlite3.Connection, sealing: Sealing, population: Population
) -> None:
    """Write the fingerprints of all seeds, which tokens of level 1 do not have (K5)."""
    key_id = sealing.active_key
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO seed_fingerprints (serial, key_id, value) VALUES (?, ?, ?)",
        (
            (
                population.serial(number),
                key_id,
                sealing.seed_fingerprint(population.seed(number), key_id),
            )
            for number in range(population.users)
        ),
    )
    db.execute("COMMIT")


def store_sealed(path: Path) -> None:
    """Move the sealed events of a state to the file beside it, as a node does (U1)."""
    create(path)
    file = SealedEvents(path)
    try:
        for segment in file.segments():
            if file.stored().get(segment.number) != segment.hash_after:
                file.store_from_state(segment, iter)
        last = file.segments()[-1] if file.segments() else None
    finally:
        file.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        if last is not None:
            db.execute(
                "DELETE FROM audit_events WHERE sequence <= ? AND sequence < "
                "(SELECT max(sequence) FROM audit_events)",
                (last.last_sequence,),
            )
        db.execute("VACUUM")
    for each in (path, file_of(path)):
        with contextlib.closing(sqlite3.connect(each)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def index_names(path: Path) -> None:
    """Make the search index beside a state, which a node makes with long rests."""
    asyncio.run(index_names_of(path))


async def index_names_of(path: Path) -> None:
    """Make the search index beside a state, in a running event loop."""
    state = await LocalState.open(path)
    try:
        await state.search.catch_up(state.transaction, lambda _: asyncio.sleep(0))
    finally:
        await state.close()


def hand_over(cluster: LocalCluster, path: Path) -> None:
    """Give a state and the files beside it to all nodes, which are stopped."""
    first = cluster.nodes[0]
    configuration = Configuration.of(
        Member(node_id=NodeId(node.node_id), address=node.peers_address)
        for node in cluster.nodes
    )
    cluster_id = KeyRing.load(first.key_ring).cluster_id
    (first.directory / "data" / "bootstrap.json").unlink(missing_ok=True)
    for node in cluster.nodes:
        data = node.directory / "data"
        data.mkdir(exist_ok=True, mode=0o700)
        for each in (path, *_beside(path)):
            shutil.copy(each, data / each.name.replace(path.stem, "state", 1))
        storage = DirectoryStorage(data / "journal")
        try:
            open_journal(
                storage,
                Identity(cluster_id, NodeId(node.node_id)),
                configuration,
                must_exist=False,
                salt=os.urandom(16),
            ).close()
            store = SnapshotStore(storage)
            facts = write_snapshot(path, data / "journal" / WRITTEN)
            length, sha256 = store.measure(WRITTEN)
            store.adopt(
                Manifest(
                    cluster_id=cluster_id,
                    index=facts.index,
                    term=1,
                    configuration=configuration,
                    digest=facts.digest,
                    length=length,
                    sha256=sha256,
                ),
                WRITTEN,
            )
        finally:
            storage.close()
    for each in (path, *_beside(path)):
        each.unlink()


def _beside(path: Path) -> tuple[Path, Path]:
    """Return the files of sealed events and of the search index."""
    return file_of(path), path.with_name(f"{path.stem}-search.db")

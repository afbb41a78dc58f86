# SPDX-License-Identifier: Apache-2.0
"""What scripts cannot show: batches, restarts, the chain and races."""

import sqlite3
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from sparecode_node.domain.agents import ALLOWED_USERS_MAX
from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent, chain_hash
from sparecode_node.domain.ids import AgentIdentity, Moment, UserId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passcodes import TokencodeMatch
from sparecode_node.domain.radius import AcceptAttributes
from sparecode_node.statemachine import feature_level, machine
from sparecode_node.statemachine import requests as requests_module
from sparecode_node.statemachine.commands import Call, Command
from sparecode_node.statemachine.commands.authentication import Authenticate
from sparecode_node.statemachine.commands.permissions import PERMISSIONS
from sparecode_node.statemachine.commands.users import CreateUser
from sparecode_node.statemachine.digest import digest
from sparecode_node.statemachine.feature_level import (
    FIRST,
    NEWEST,
    FeatureLevelError,
)
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import (
    Applied,
    Authenticated,
    BarrierPassed,
    Decision,
    EmergencyAccessSaved,
    Result,
    SessionOpened,
    from_json,
    to_json,
)
from sparecode_node.statemachine.tables import agents as agent_tables
from sparecode_node.statemachine.tables.formats import SchemaError
from sparecode_node.statemachine.tables.schema import VERSION
from sparecode_node.statemachine.targets import TARGET_FIELDS, target_of
from tests.databases import WithoutLog, open_database
from tests.statemachine.next_format import FORMAT, begin_next_format
from tests.statemachine.world import START_MS, World

ISSUED = (
    ("begin", {}),
    ("create-user", {"name": "alice"}),
    ("enroll", {"serial": "1001"}),
    ("assign", {"serial": "1001", "user": "alice"}),
    ("set-pin", {"serial": "1001", "pin": "1234"}),
    ("save", {"serial": "1001", "set": "A", "count": "10"}),
)


@pytest.fixture
def world() -> World:
    """Return a world in which Alice has a token, a PIN and ten emergency codes."""
    made = World()
    for directive, arguments in ISSUED:
        made.handle(directive, dict(arguments))
    return made


def use(code: str, **more: str) -> dict[str, str]:
    """Return the passcode that Alice types."""
    return {"user": "alice", "pin": "1234", "code": code, **more}


def authenticate(world: World, code: str, **more: str) -> str:
    """Return the answer to the agent."""
    result = world.apply(world.call("authenticate", use(code, **more)))
    assert isinstance(result, Authenticated)
    return result.decision.value


def events(world: World, columns: str = "action, outcome, reason") -> list[Any]:
    """Return the audit log."""
    return world.db.execute(
        f"SELECT {columns} FROM audit_events ORDER BY sequence"  # noqa: S608
    ).fetchall()


# --- One code, once


def test_of_thirty_simultaneous_tries_one_is_accepted(world: World) -> None:
    """
    Thirty tries of one code in one entry, through three nodes (A3, A5).

    Exactly one is accepted, and the next code works at once: a double submit locks no
    one out.
    """
    calls = [
        world.call("authenticate", use("A/1", via=f"n{1 + number % 3}"))
        for number in range(30)
    ]
    decisions = [result.decision for result in world.apply_batch(calls)]
    assert decisions.count(Decision.ACCEPTED) == 1
    assert decisions[0] is Decision.ACCEPTED
    assert authenticate(world, "A/2") == "accepted"


def test_thirty_tries_over_three_nodes_and_entries(world: World) -> None:
    """The same when each try is an entry of its own (A3, A5)."""
    decisions = [authenticate(world, "A/1", via=f"n{n % 3}") for n in range(30)]
    assert decisions.count("accepted") == 1
    assert authenticate(world, "A/2") == "accepted"


def test_a_retry_after_the_batch_has_the_same_answer(world: World) -> None:
    """Same id, same answer, even within one entry; the code is spent once (Q2)."""
    call = world.call("authenticate", use("A/1", request="x"))
    first, second = world.apply_batch([call, call])
    assert first == second
    assert world.apply(call) == first
    states = world.db.execute("SELECT count(*) FROM codes WHERE state = 'used'")
    assert states.fetchone() == (1,)


def test_a_hundred_wrong_codes_end_emergency_access(world: World) -> None:
    """
    A hundred failures: the factor is off and the codes are void (L4, R2).

    The lost mark stays, so the token is still refused. Unlocking revives no code.
    Earlier drafts are stale (I3).
    """
    versions = "SELECT auth_version FROM users"
    (before,) = world.db.execute(versions).fetchone()
    for _ in range(100):
        assert authenticate(world, "WRONG") == "refused"
        world.handle("wait", {"2d": "yes"})
        world.handle("sign-in", {})
    assert ("CODES_VOIDED", "noted", "") in events(world)
    assert world.db.execute(versions).fetchone() == (before + 1,)
    assert authenticate(world, "A/1") == "refused"
    assert events(world)[-1] == ("Authenticate", "refused", "locked")
    world.handle("unlock-user", {"name": "alice"})
    assert authenticate(world, "A/1") == "refused"
    assert events(world)[-1] == ("Authenticate", "refused", "code_not_live")
    world.handle("authenticate", {"user": "alice", "pin": "1234", "step": "0"})
    assert ("Authenticate", "refused", "recovered_token_refused") in events(world)


def test_an_unknown_name_is_looked_up_like_a_user_without_a_token(
    world: World,
) -> None:
    """(A6) Each node that applies the refusal reads as much."""
    world.handle("create-user", {"name": "bob"})
    looked_up: dict[str, list[str]] = {}
    for name in ("bob", "stranger"):
        call = world.call("authenticate", use("A/1", user=name))
        seen: list[str] = []
        world.db.set_trace_callback(seen.append)
        world.apply(call)
        world.db.set_trace_callback(None)
        entry = seen[seen.index("SAVEPOINT call") :]
        # By table: values, such as the user's id, are part of a traced statement.
        looked_up[name] = [
            words[words.index("FROM") + 1]
            for statement in entry
            if "FROM" in (words := statement.split())
        ]
    assert looked_up["bob"] == looked_up["stranger"]
    assert {"tokens", "lockouts"} < set(looked_up["bob"])


# --- Entries and restarts


def test_an_entry_without_calls_moves_the_index_only(world: World) -> None:
    """Raft's own entries are applied too and change nothing else."""
    before = world.machine.digest()
    assert world.machine.apply(world.index + 1, ()) == ()
    assert world.machine.applied_index == world.index + 1
    assert world.machine.digest() == before


@pytest.mark.parametrize("back", [0, 1])
def test_no_entry_is_applied_twice(world: World, back: int) -> None:
    """Applying an index again is a bug of the caller."""
    with pytest.raises(ValueError, match="applied already"):
        world.machine.apply(world.index - back, ())


def test_a_restart_continues_where_it_stopped(tmp_path: Path) -> None:
    """The database holds everything apply needs: chain, time, request ids, policy."""
    straight = World()
    path = tmp_path / "state.db"
    db = open_database(path)
    machine = StateMachine(db)
    script = [
        *ISSUED,
        ("authenticate", use("A/1", request="x")),
        ("wait", {"5m": "yes"}),
        ("authenticate", use("A/1", request="x")),
        ("authenticate", use("A/9")),
    ]
    for directive, arguments in script:
        straight.handle(directive, dict(arguments))
    for index, calls in straight.log:
        machine.apply(index, calls)
        db.close()
        db = open_database(path)
        machine = StateMachine(db)
        assert machine.applied_index == index
    assert machine.digest() == straight.machine.digest()
    assert digest(db) == machine.digest()
    db.close()


def test_one_entry_or_many_make_the_same_rows(world: World) -> None:
    """Batching shows in indexes only, never in a decision."""
    calls = [world.call("authenticate", use(f"A/{n % 4}")) for n in range(12)]
    other = world.replayed()
    other.index = world.index
    apart = [world.apply(call) for call in calls]
    together = other.apply_batch(calls)
    assert [r.decision for r in apart] == [r.decision for r in together]
    assert world.machine._audit.head == other.machine._audit.head


class Broken(sqlite3.Connection):
    """A database whose disk fails at a statement."""

    failing = ""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self.failing and self.failing in sql:
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *values)


@pytest.mark.parametrize("failing", ["INSERT INTO audit_events", "UPDATE codes"])
def test_a_failure_leaves_nothing_of_the_entry(world: World, failing: str) -> None:
    """An exception means a broken replica; the entry is undone as a whole."""
    db = open_database(factory=Broken)
    machine = StateMachine(db)
    for index, calls in world.log:
        machine.apply(index, calls)
    before, head = machine.digest(), machine._audit.head
    first = world.call("create-user", {"name": "bob"})
    second = world.call("authenticate", use("A/1"))
    db.failing = failing
    with pytest.raises(sqlite3.OperationalError):
        machine.apply(world.index + 1, [first, second])
    db.failing = ""
    assert machine.digest() == before
    assert machine.applied_index == world.index
    assert machine._audit.head == head
    results = machine.apply(world.index + 1, [first, second])
    assert [type(result) for result in results] == [Applied, Authenticated]


def test_a_database_that_gets_no_write_ahead_log_is_refused(tmp_path: Path) -> None:
    """
    SQLite raises no error then, and goes on with a rollback journal.

    The page sums know nothing of what is written so: each later start refuses the file.
    """
    db = sqlite3.connect(tmp_path / "state.db", factory=WithoutLog)
    with pytest.raises(sqlite3.OperationalError, match="no write-ahead log"):
        StateMachine(db)
    db.close()
    db = sqlite3.connect(tmp_path / "state.db")
    assert StateMachine(db).applied_index == 0
    db.close()


def test_a_transaction_that_sqlite_ended_itself_is_not_ended_twice() -> None:
    """After some failures SQLite has rolled back already; the first error stands."""

    class Ended(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql == "COMMIT":
                super().execute("ROLLBACK")
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *values)

    machine = StateMachine(open_database(factory=Ended))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        machine.apply(1, ())
    assert machine.applied_index == 0


def test_another_versions_database_is_refused() -> None:
    """A schema of the future is not guessed at."""
    db = open_database()
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(SchemaError, match=f"format {VERSION + 1}"):
        StateMachine(db)


def test_feature_level_is_raised_and_never_goes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is part of the state: a restart and a snapshot bring it along."""
    monkeypatch.setattr(feature_level, "NEWEST", 2)
    assert world.machine.feature_level == FIRST
    world.handle("raise-feature-level", {"level": "2"})
    world.handle("raise-feature-level", {"level": "1"})
    assert world.machine.feature_level == 2
    assert StateMachine(world.db).feature_level == 2


def test_feature_level_that_this_software_does_not_know_stops_it(world: World) -> None:
    """An old replica must not guess at what newer ones do."""
    with pytest.raises(FeatureLevelError, match=rf"level {NEWEST + 1}.*knows {NEWEST}"):
        world.handle("raise-feature-level", {"level": str(NEWEST + 1)})
    assert world.machine.feature_level == FIRST
    row = ("feature_level", NEWEST + 1)
    world.db.execute("INSERT INTO meta (name, value) VALUES (?, ?)", row)
    with pytest.raises(FeatureLevelError, match="install the release"):
        StateMachine(world.db)


def test_database_of_the_format_before_is_brought_to_this_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgraded node has the state, column by column, that a new one makes."""
    begin_next_format(monkeypatch)
    new = World()
    new.begin()

    upgraded = StateMachine(world.db)

    assert world.db.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    assert upgraded.applied_index == world.machine.applied_index
    assert world.db.execute("SELECT name, extra FROM agents").fetchall()
    assert columns(world.db) == columns(new.db)


def columns(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    """Return the columns of every table, in their order."""
    return db.execute(
        'SELECT tables.name, found.name, found.type, "notnull", dflt_value '
        "FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS found "
        "WHERE tables.type = 'table' ORDER BY tables.name, found.cid"
    ).fetchall()


# --- Agents


def test_an_allow_list_has_an_end(world: World) -> None:
    """(A4) One user too many: refused as a whole, and the list is as it was."""
    world.apply(world.call("create-user", {"name": "last"}))
    with world.db:
        world.db.execute("PRAGMA foreign_keys = OFF")
        world.db.executemany(
            "INSERT INTO agent_users VALUES ('vpn', ?)",
            [(f"u{number}",) for number in range(ALLOWED_USERS_MAX)],
        )
    full = world.call("update-agent", {"name": "vpn", "allow": "last"})
    refused = world.apply(full)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.ALLOW_LIST_LIMIT
    assert not agent_tables.lists_user(world.db, AgentIdentity("vpn"), UserId("u-last"))


# --- Time and numbers beyond all bounds


BIG = 2**63 - 1


@pytest.mark.parametrize("at_ms", [BIG, -BIG])
def test_a_mad_clock_breaks_no_replica(world: World, at_ms: int) -> None:
    """Time stays a number that sums can be made of, and never goes back (T5)."""
    call = replace(world.call("authenticate", use("WRONG")), at_ms=at_ms)
    assert isinstance(world.apply(call), Authenticated)
    passed = world.apply(world.call("barrier", {}))
    assert isinstance(passed, BarrierPassed)
    assert START_MS <= passed.at_ms < 253_402_300_800_000


@pytest.mark.parametrize(
    "changes",
    [
        {"lifetime_ms": BIG},
        {"ends_at_ms": BIG},
        {"lifetime_ms": -BIG},
        {"draft_id": "d", "draft_ends_at_ms": BIG},
    ],
)
def test_a_mad_lifetime_is_an_answer(world: World, changes: Any) -> None:
    """Whatever a node sends, apply has an answer (total)."""
    call = world.call("save", {"serial": "1001", "set": "B"})
    result = world.apply(replace(call, command=replace(call.command, **changes)))
    assert isinstance(result, Rejected | EmergencyAccessSaved)


def test_a_moment_beyond_all_bounds_is_spent(world: World) -> None:
    """The primary's match is taken as it is; the token is its owner's problem."""
    world.handle("reinstate", {"serial": "1001"})
    arguments = {"user": "alice", "pin": "1234", "step": "0"}
    call = world.call("authenticate", arguments)
    command = call.command
    assert isinstance(command, Authenticate)
    match = TokencodeMatch(
        serial=command.readings[0].tokencodes[0].serial, moment=Moment(BIG)
    )
    mad = replace(
        command, readings=(replace(command.readings[0], tokencodes=(match,)),)
    )
    result = world.apply(replace(call, command=mad))
    assert isinstance(result, Authenticated)
    assert result.decision is Decision.ACCEPTED


# --- Request ids


def test_new_requests_are_shed_when_the_table_is_full(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Never evicted by number: known ids still have their answers (Q3).

    What is shed leaves no trace, else shedding would cost as much as deciding; and
    time makes room.
    """
    call = world.call("authenticate", use("A/1", request="x"))
    accepted = world.apply(call)
    rows = len(events(world))
    monkeypatch.setattr(requests_module.Requests, "full", lambda *_: True)
    shed = world.apply(world.call("authenticate", use("A/2")))
    assert isinstance(shed, Rejected)
    assert shed.reason is Reason.REQUEST_TABLE_FULL
    assert world.apply(call) == accepted
    assert len(events(world)) == rows
    monkeypatch.undo()
    assert authenticate(world, "A/2") == "accepted"


def test_the_table_is_full_at_the_policys_number(world: World) -> None:
    """The count follows what is added and what time removes (Q3)."""
    counted = world.machine._requests
    (rows,) = world.db.execute("SELECT count(*) FROM requests").fetchone()
    policy = world.machine._policy
    assert not counted.full(replace(policy, requests_max=rows + 1))
    assert counted.full(replace(policy, requests_max=rows))
    world.handle("wait", {"1h": "yes"})
    world.handle("barrier", {})
    assert not counted.full(replace(policy, requests_max=1))


# --- Audit


def chain(db: sqlite3.Connection) -> Sequence[tuple[AuditEvent, bytes]]:
    """Return every event with its recorded hash."""
    return [
        (
            AuditEvent(
                sequence=row[0],
                at_ms=row[1],
                actor=row[2],
                node=row[3],
                action=row[4],
                target=row[5],
                outcome=row[6],
                reason=row[7],
                detail=row[8],
            ),
            row[9],
        )
        for row in db.execute(
            "SELECT sequence, at_ms, actor, node, action, target, outcome, reason, "
            "detail, hash FROM audit_events ORDER BY sequence"
        )
    ]


def test_the_audit_log_is_a_chain(world: World) -> None:
    """Each hash covers the one before; numbers have no gap (U1)."""
    authenticate(world, "A/1", via="n3")
    previous, recorded = GENESIS_HASH, chain(world.db)
    for number, (event, hashed) in enumerate(recorded, start=1):
        assert event.sequence == number
        previous = chain_hash(previous, event)
        assert hashed == previous
    last = recorded[-1][0]
    assert (last.actor, last.node, last.action) == ("agent:vpn", "n3", "Authenticate")
    issued = next(e for e, _ in recorded if e.action == "SaveEmergencyAccess")
    assert (issued.actor, issued.target) == ("administrator:root", "1001")


def test_replicas_have_the_same_head(world: World) -> None:
    """The head is equal on every replica (U1)."""
    assert world.replayed().machine._audit.head == world.machine._audit.head


def test_the_actor_of_a_change_is_the_sessions_administrator(world: World) -> None:
    """The session decides, not the caller that the call names (P1)."""
    call = world.call("create-user", {"name": "bob", "as": "stranger"})
    world.apply(call)
    assert events(world, "actor")[-1] == ("administrator:root",)


def test_unknown_names_and_passwords_are_not_kept(world: World) -> None:
    """People type PINs and passwords into the name field (A6)."""
    world.handle("authenticate", {"user": "TopSecret9", "pin": "1", "code": "A/1"})
    world.handle("sign-in", {"as": "TopSecret9", "password": "x", "request": "same"})
    world.handle("sign-in", {"as": "TopSecret9", "request": "same", "tag": "9"})
    result = events(world, "action, target, outcome, reason, detail")
    assert not [row for row in result if "TopSecret9" in repr(row)]
    assert result[-3][1] == "unknown " + b"tag topsecret9".hex()


# --- The vocabulary is whole


def test_every_administrators_command_needs_a_session(world: World) -> None:
    """Only agents, barriers, sign-in and initialization work without one (P1)."""
    others = {
        "InitializeCluster",
        "OpenSession",
        "Authenticate",
        "ContinueAuthentication",
        "NoteRefusedCalls",
        "NoteSkipStatement",
        "TouchSessions",
        "StartBrowserLogin",
        "CollectBrowserLogin",  # An approval of its administrator.
        "RaiseFeatureLevel",
        "PassBarrier",
        "BeginEpoch",
        "ReplaceSeals",
        "RetireKey",
        "NoteBackup",
        "AdmitNode",  # Its ticket.
        "RenewCertificate",
        "NoteAuthorityKeys",
        "NoteMemberKey",
        "NoteSegments",
        "NoteArchive",
        "RemoveSegments",
        "AnnounceAuthority",
        "RetireAuthority",
        "ActivateDueKey",
        "ResetAdministrator",
        "AcknowledgeNotices",
        "FailNotices",
        "OpenSealedCodes",  # What the link of a message opens.
        "NoteSealedCodes",
        "NoteEndedSets",
        "RaiseAlarm",  # What the link of a notice does.
    }
    every = {command.__name__ for command in get_args(Command)}
    assert {command.__name__ for command in PERMISSIONS} == every - others


def test_every_command_has_a_target_or_is_known_to_have_none() -> None:
    """A new command without a target field is added to `target_of`, and here (U1)."""
    exceptional = {
        command.__name__
        for command in get_args(Command)
        if not {field.name for field in fields(command)} & {*TARGET_FIELDS}
    }
    without_target = {
        "CloseSession",
        "CreateBackup",
        "NoteBackup",
        "NoteEndedSets",
        "OpenCluster",
        "PassBarrier",
        "StartBrowserLogin",
        "TouchSessions",
    }
    assert exceptional == without_target | {
        "AcknowledgeNotices",
        "ApproveBrowserLogin",
        "CollectBrowserLogin",
        "RefuseBrowserLogin",
        "ActivateKey",
        "AdmitNode",
        "AllowCertificate",
        "Approve",
        "Authenticate",
        "BeginEpoch",
        "ContinueAuthentication",
        "ConfirmArchive",
        "WithdrawArchive",
        "DeclareSegmentsLost",
        "PrepareMove",
        "FreezeUsers",
        "ExportMovedUsers",
        "ImportMovedUsers",
        "ActivateMove",
        "CancelMove",
        "EndMove",
        "ReclaimMove",
        "DeleteMovedUsers",
        "DenyCertificate",
        "EndSession",
        "FailNotices",
        "InitializeCluster",
        "NoteRefusedCalls",
        "NoteSkipStatement",
        "OpenSealedCodes",
        "OpenSession",
        "RaiseAlarm",
        "RaiseFeatureLevel",
        "Reauthenticate",
        "Reject",
        "RemoveChannel",
        "RemoveSegments",
        "ReplaceSeals",
        "RequestBulkIssue",
        "RetireAuthority",
        "RetireKey",
        "SendNoticesAgain",
        "TransferPrimary",
        "UpdatePolicy",
    }


@pytest.mark.parametrize(
    "directive",
    [
        ("create-user", {"name": "bob"}),
        ("update-user", {"name": "alice"}),
        ("delete-user", {"name": "alice"}),
        ("unlock-user", {"name": "alice"}),
        ("enroll", {"serial": "1002"}),
        ("assign", {"serial": "1001", "user": "alice"}),
        ("set-pin", {"serial": "1001", "pin": "1"}),
        ("reinstate", {"serial": "1001"}),
        ("save", {"serial": "1001"}),
        ("disable", {"serial": "1001"}),
        ("register-agent", {"name": "ssh"}),
        ("sign-out", {}),
    ],
    ids=lambda directive: directive[0],
)
def test_without_a_session_nothing_is_changed(world: World, directive: Any) -> None:
    """The call gets `SESSION_ENDED`, and only the event is new (P1)."""
    name, arguments = directive
    tables = ("users", "tokens", "code_sets", "codes", "agents", "sessions", "requests")
    before = [world.db.execute(f"SELECT * FROM {t}").fetchall() for t in tables]  # noqa: S608
    result = world.apply(world.call(name, {**arguments, "session": "none"}))
    after = [world.db.execute(f"SELECT * FROM {t}").fetchall() for t in tables]  # noqa: S608
    assert isinstance(result, Rejected)
    assert result.reason is Reason.SESSION_ENDED
    assert after == before
    assert events(world)[-1][1:] == ("refused", "session_ended")


def test_an_unassigned_token_can_be_reinstated(world: World) -> None:
    """It has no user whose `auth_version` could be raised."""
    world.db.execute("UPDATE tokens SET user_id = NULL")
    assert world.handle("reinstate", {"serial": "1001"}).startswith("applied")


def test_issuing_without_an_administrator_is_a_bug(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the check of sessions is ever lost, apply raises instead of answering (P1)."""
    monkeypatch.setattr(machine, "check_session", lambda *_: None)
    with pytest.raises(AssertionError, match="without an administrator"):
        world.apply(world.call("save", {"serial": "1001", "set": "B"}))


def test_a_barrier_has_no_target(world: World) -> None:
    """Every command has a target or none; an event always has an answer."""
    assert target_of(world.db, world.call("barrier", {}).command) == ""


def test_a_second_user_under_a_known_id_changes_nothing(world: World) -> None:
    """No node would send it; the first user stays unchanged (apply is total)."""
    call = world.call("create-user", {"name": "mallory"})
    assert isinstance(call.command, CreateUser)
    for changes in ({"user_id": "u-alice"}, {"name_tag": b"tag alice"}):
        again: Call = replace(
            call,
            command=replace(call.command, **changes),
            request=replace(call.request, request_id=str(changes)),
        )
        result = world.apply(again)
        assert isinstance(result, Rejected)
        assert result.reason is Reason.USER_EXISTS
    (names,) = zip(*world.db.execute("SELECT username FROM users"), strict=True)
    assert names == ("alice",)


TOLD = Authenticated(
    index=2,
    decision=Decision.ACCEPTED,
    authentication_id="a",
    attributes=AcceptAttributes(filter_id="staff", session_timeout_s=60),
)
RESULTS: list[Any] = [
    Applied(index=1),
    Authenticated(index=2, decision=Decision.ACCEPTED, authentication_id="a"),
    pytest.param(TOLD, id="Authenticated, with attributes"),
    EmergencyAccessSaved(
        index=3,
        at_ms=START_MS,
        set_id="A",
        codes=3,
        live_codes=4,
        voided_codes=5,
        ends_at_ms=None,
        pin_missing_warning=True,
    ),
    SessionOpened(index=4, administrator="root", role="super_admin", ends_at_ms=9),
    BarrierPassed(index=5, at_ms=6),
    Rejected(Reason.CODE_COUNT, "count must be 1 to 50, not 51", "count"),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_stored_result_is_read_back_unchanged(result: Result) -> None:
    """The stored text is stable."""
    assert from_json(to_json(result)) == result
    assert to_json(from_json(to_json(result))) == to_json(result)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"type": "Oops"}',
        '{"type": "Applied"}',
        '{"type": "Applied", "index": 1, "more": 2}',
        '{"type": "Rejected", "reason": "no such reason"}',
    ],
)
def test_an_invalid_result_is_refused(text: str) -> None:
    """A node's nonsense answer is not believed."""
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own error is one too.
        from_json(text)

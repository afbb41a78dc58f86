# SPDX-License-Identifier: Apache-2.0
"""Entries that the operators skip are applied as refused, on all replicas alike (E3)."""

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine import dispatch
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.commands.users import CreateUser
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.shares import Shares
from sparecode_node.statemachine.skipping import ENTRY_SKIPPED, kinds_of
from sparecode_node.statemachine.snapshots import write_snapshot
from tests.statemachine.world import SKIPPED_DIGEST, START_MS, World, skipped_entry


@pytest.fixture
def world() -> World:
    """Return a world at feature level 2, with the user alice."""
    made = World()
    made.begin()
    made.handle("raise-feature-level", {"level": "2"})
    made.handle("create-user", {"name": "alice"})
    return made


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command that makes the user mallory raise an exception."""
    decide = dispatch.decide

    def broken(applying: Applying, again: Callable[[Applying], Result]) -> Result:
        command = applying.call.command
        if isinstance(command, CreateUser) and command.name_key == "mallory":
            raise ZeroDivisionError
        return decide(applying, again)

    monkeypatch.setattr(dispatch, "decide", broken)


def poison(world: World) -> Call:
    """Return the call that stops a replica."""
    return world.call("create-user", {"name": "mallory"})


def events(world: World, after: int) -> list[tuple[str, ...]]:
    """Return the events after a number."""
    return world.db.execute(
        "SELECT action, target, actor, outcome, reason, detail FROM audit_events "
        "WHERE sequence > ? ORDER BY sequence",
        (after,),
    ).fetchall()


def count(world: World, table: str) -> int:
    """Return the number of rows of a table."""
    (rows,) = world.db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    return int(rows)


@pytest.mark.usefixtures("poisoned")
def test_a_skipped_entry_changes_nothing_and_the_log_goes_on(world: World) -> None:
    """The replica that stopped at the entry goes on after it (E3)."""
    call = poison(world)
    with pytest.raises(ZeroDivisionError):
        world.machine.apply(world.index + 1, [call])
    users = count(world, "users")
    assert world.skip(call) == (ENTRY_SKIPPED,)
    assert world.machine.applied_index == world.index
    assert count(world, "users") == users
    assert world.handle("create-user", {"name": "bob"}).startswith("applied")


@pytest.mark.usefixtures("poisoned")
def test_a_retry_of_a_skipped_call_gets_its_answer(world: World) -> None:
    """It does not stop the nodes again (E3, Q1)."""
    call = poison(world)
    world.skip(call)
    assert world.apply(replace(call, at_ms=world.now_ms + 1)) == ENTRY_SKIPPED
    other = replace(call, request=replace(call.request, tag=99))
    result = world.apply(other)
    assert isinstance(result, Rejected)
    assert result.reason is Reason.REQUEST_ID_REUSED


def test_an_earlier_answer_stays(world: World) -> None:
    """A retry in a skipped entry does not undo what was acknowledged (E3, Q1)."""
    call = world.call("create-user", {"name": "bob"})
    answer = world.apply(call)
    world.skip(call)
    assert world.apply(replace(call, at_ms=world.now_ms + 1)) == answer


def test_a_forgotten_answer_is_replaced(world: World) -> None:
    """Whether a row is due does not depend on when the replica started (Q3)."""
    call = world.call("create-user", {"name": "bob"})
    world.apply(call)
    world.db.execute("UPDATE requests SET at_ms = 0")
    world.skip(call)
    (result,) = world.db.execute(
        "SELECT result FROM requests WHERE request_id = ?", (call.request.request_id,)
    ).fetchone()
    assert "entry_skipped" in result


def test_entry_and_calls_are_in_the_audit_log(world: World) -> None:
    """The events name the entry, and the caller of each call (E3, U1)."""
    before = world.machine._audit.sequence
    barrier = world.call("barrier", {})
    sign_in = world.call("sign-in", {"as": "TopSecret9", "session": "s9"})
    world.skip(poison(world), barrier, sign_in)
    target = f"entry {world.index}"
    refused = ("refused", "entry_skipped", target)
    assert events(world, before) == [
        ("CreateUser", "", "administrator:root", *refused),
        ("OpenSession", "", "administrator", *refused),
        (
            *("ENTRY_SKIPPED", target, "operators", "applied", ""),
            f"term 3, SHA-256 {SKIPPED_DIGEST}: 1 CreateUser, 1 OpenSession, 1 PassBarrier",
        ),
    ]


def test_operators_are_named_by_their_statements(world: World) -> None:
    """Each member's statement counts once; one about no skipped entry not at all (E3, U1)."""
    world.skip(poison(world))
    note = {
        "index": str(world.index),
        "digest": SKIPPED_DIGEST,
        "member": "n1",
        "operator": "ada",
        "reason": "bug 7",
    }
    before = world.machine._audit.sequence
    assert world.handle("note-skip", note).startswith("applied")
    world.handle("note-skip", {**note, "operator": "eve"})
    for other in ({"digest": "cd" * 32}, {"index": "1"}):
        assert world.handle("note-skip", {**note, **other}).startswith("rejected")
    assert events(world, before)[0] == (
        *("NoteSkipStatement", f"entry {note['index']}", "operator:ada"),
        *("applied", "", "signed by n1: bug 7"),
    )
    rows = world.db.execute("SELECT member, operator FROM skip_statements").fetchall()
    assert rows == [("n1", "ada")]


@pytest.mark.usefixtures("poisoned")
def test_replicas_have_the_same_digest_whenever_they_start(
    world: World, tmp_path: Path
) -> None:
    """One replica skips it while it runs, one after a start, one has a snapshot (E3)."""
    bad, index = poison(world), world.index + 1
    world.skip(bad)
    world.handle("create-user", {"name": "bob"})
    replayed = World()
    for at, calls in world.log[: index - 1]:
        replayed.machine.apply(at, calls)
    replayed.machine = StateMachine(replayed.db)
    replayed.machine.skip(skipped_entry(index), [bad])
    for at, calls in world.log[index:]:
        replayed.machine.apply(at, calls)
    assert replayed.machine.digest() == world.machine.digest()
    state = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(state)) as file:
        world.db.backup(file)
    snapshot = tmp_path / "snapshot"
    write_snapshot(state, snapshot)
    joined = World()
    joined.machine.install(str(snapshot))
    joined.machine.reload()
    assert joined.machine.digest() == world.machine.digest()
    assert count(joined, "skipped_entries") == 1
    result = joined.machine.apply(
        world.index + 1, [replace(bad, at_ms=world.now_ms + 1)]
    )
    assert result == (ENTRY_SKIPPED,)


def test_a_skipped_entry_is_in_the_digest(world: World) -> None:
    """A replica that has applied it has another digest (E3)."""
    other = world.replayed()
    call = world.call("create-user", {"name": "bob"})
    world.skip(call)
    other.machine.apply(world.index, [call])
    assert other.machine.digest() != world.machine.digest()


def test_a_value_that_cannot_be_stored_does_not_stop_the_replica_again(
    world: World,
) -> None:
    """The poison may be in the request itself; nothing else of the entry is lost (E3)."""
    good, bad = world.call("create-user", {"name": "bob"}), poison(world)
    bad = replace(bad, request=replace(bad.request, tag=2**63))
    with pytest.raises(OverflowError):
        world.machine.apply(world.index + 1, [good, bad])
    before = world.machine._audit.sequence
    assert world.skip(good, bad) == (ENTRY_SKIPPED, ENTRY_SKIPPED)
    first, last = events(world, before)
    assert first[0] == "CreateUser"
    assert last[-1].endswith("2 CreateUser; 1 not remembered")
    assert world.apply(replace(good, at_ms=START_MS)) == ENTRY_SKIPPED


@pytest.mark.parametrize("part", ["request", "audit event"])
def test_a_call_that_cannot_be_stored_takes_no_room(world: World, part: str) -> None:
    """A replica that starts later counts the same rows (E3, Q3)."""
    known = world.call("create-user", {"name": "carol"})
    world.apply(known)
    world.db.execute("UPDATE requests SET at_ms = 0")  # So it is to be forgotten.
    bad = poison(world)
    if part == "request":
        bad = replace(bad, request=replace(known.request, tag=2**63))
    else:
        bad = replace(bad, node_id=NodeId("\ud800"))
    world.skip(bad)
    counted = Shares()
    counted.load(world.db, world.index)
    assert vars(world.machine._requests._shares) == vars(counted)
    rows = counted._rows
    counted.count(world.db)
    assert counted._rows == rows


def test_an_applied_entry_is_never_skipped(world: World) -> None:
    """Its caller may have got the answer (E3)."""
    with pytest.raises(ValueError, match="applied already"):
        world.machine.skip(skipped_entry(world.index), [])


def test_nothing_is_skipped_below_its_level() -> None:
    """A member of release 0.1.0 would not know it (E3)."""
    world = World()
    world.begin()
    with pytest.raises(ValueError, match="feature level"):
        world.machine.skip(skipped_entry(world.index + 1), [poison(world)])


def test_commands_are_counted_by_their_names(world: World) -> None:
    users = [world.call("create-user", {"name": name}) for name in ("bob", "carol")]
    assert (
        kinds_of([*users, world.call("barrier", {})]) == "2 CreateUser, 1 PassBarrier"
    )

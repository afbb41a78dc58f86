# SPDX-License-Identifier: Apache-2.0
"""
An approver can tell each request from its twin, by its words alone (P3).

Every request in the scripts is made once more with each of its fields changed. Where the
twin waits, too, its words are others: in the console and on the command line.
"""

import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from sparecode_client.cli.commands.approvals import _description
from sparecode_client.values.approvals import Approval as ClientApproval
from sparecode_node.console.pages import approval_words
from sparecode_node.domain.ids import RequestId
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.queries.approvals import ApprovalView
from sparecode_node.statemachine.commands import Call, Command
from sparecode_node.statemachine.commands.moves import ReclaimMove
from sparecode_node.statemachine.commands.pending import Change
from sparecode_node.statemachine.commands.tokens import UpdateToken
from sparecode_node.statemachine.handlers import approvals
from sparecode_node.statemachine.results import Applied, ApprovalPending, Result
from sparecode_node.statemachine.targets import target_of
from tests.replication.test_codec import example
from tests.statemachine.scripts import SEPARATOR, directive_of
from tests.statemachine.test_scripts import SCRIPTS
from tests.statemachine.world import World

CODES = frozenset({"serial", "serials"})
"""What an approval to issue codes is for: its tokens, not one draft of codes."""
NOT_ASKED = frozenset({("SaveChannel", "name"), ("FinishAuthorities", "successors")})
"""
The services fold the name of a channel to its key. Successors that replace no authority
that is due change nothing.
"""
TARGET_ALONE = {
    **dict.fromkeys(("ReplaceAuthorities", "FinishAuthorities"), ("node_id",)),
    **dict.fromkeys(("DeclareSegmentsLost", "ConfirmArchive"), ("first", "last")),
    **dict.fromkeys(("ActivateMove", "DeleteMovedUsers"), ("move_id",)),
    **dict.fromkeys(
        (
            *("ReinstateToken", "DisableEmergencyAccess", "SetPin"),
            *("ResynchronizeToken", "IssueTokencodesInBulk", "SaveEmergencyAccess"),
        ),
        ("serial",),
    ),
    "ChangePassword": ("name",),
    "OpenCluster": (),
}
"""
Kinds whose requests have no twin in the scripts, and the fields of their object. The
review of `OpenCluster` is in its words, and only the present one is not refused.
"""
HITS_MAX = 40
"""Calls of one kind that are looked at."""
NO_WORDS = frozenset(
    {
        *("candidate", "password_salt", "password_verifier", "pin_verifier"),
        *("verifier", "sealed_pin", "sealed_secret", "certificate", "lettered"),
        *("moments", "proof", "counted"),
    }
)
"""Secrets, what is made from them, and what the author sends again after the approval."""
SAME_OBJECT = frozenset(
    {
        *("version", "administrator_version", "policy_version", "auth_version"),
        *("key_id", "candidate_key_id", "source_key_id"),
        *("nodes", "hash_before", "user_id", "etag"),
    }
)
"""What the request was computed with. If it is not the present one, it is refused."""


class Watched(World):
    """A world that remembers which calls may have to wait, and the entries before them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, Call]] = []

    def apply(self, call: Call) -> Result:
        """Apply one call."""
        before = len(self.log)
        result = super().apply(call)
        if isinstance(result, Applied | ApprovalPending) and call.session_id:
            self.calls.append((before, call))
        return result

    def until(self, entries: int) -> World:
        """Return a world as it was before an entry."""
        other = World()
        other.log, other.skipped = self.log[:entries], self.skipped
        again = other.replayed()
        again.index = other.log[-1][0]
        return again


@functools.cache
def all_scripts() -> dict[str, list[tuple[Watched, int, Call]]]:
    """Return the calls of each kind in all scripts, the waiting ones first."""
    found: dict[str, list[tuple[Watched, int, Call]]] = {}
    for script in SCRIPTS:
        world = Watched()
        for block in script.read_text().strip().split("\n\n"):
            head, separator, _ = block.partition(SEPARATOR)
            if separator:
                world.handle(*directive_of(head))
        for before, call in world.calls:
            kind = type(call.command).__name__
            found.setdefault(kind, []).append((world, before, call))
    return found


def twins(command: Any, known: dict[str, set[Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the command with one field changed, by every value that may be valid."""
    for field in dataclasses.fields(command):
        if field.name in NO_WORDS | SAME_OBJECT:
            continue
        if not isinstance(command, Change) and field.name not in CODES:
            continue
        if (type(command).__name__, field.name) in NOT_ASKED:
            continue
        hint = typing.get_type_hints(type(command))[field.name]
        before = getattr(command, field.name)
        for value in others(hint, before, known.get(field.name, set())):
            if value != before:
                yield field.name, dataclasses.replace(command, **{field.name: value})


def others(hint: Any, before: Any, known: set[Any]) -> Iterator[Any]:
    kind = getattr(hint, "__supertype__", hint)
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        for each in typing.get_args(kind):
            if each is not types.NoneType:
                yield from others(each, before, known)
        return
    yield from sorted(known, key=repr)
    if typing.get_origin(kind) is tuple:
        yield from ((), (*(before or ()), "extra"))
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        yield from kind
    elif kind is bool:
        yield from (True, False)
    elif kind is int:
        present = before or 0
        step = 1 if present < 60_000 else 60_000  # A long time is shown in six digits.
        yield from (present + step, present - step, 5)
    elif kind is str:
        yield from ((before or "") + "x", "x")
    elif kind is bytes:
        yield bytes(each ^ 1 for each in before or b"x")


def words(world: World, approval_id: int) -> tuple[tuple[object, ...], ...]:
    """Return what the pages of the console and of the command line show of a request."""
    values = world.db.execute(
        "SELECT author, action, target, description, serials, asked_at_ms, ends_at_ms, "
        "recipient FROM approvals WHERE approval_id = ?",
        (approval_id,),
    ).fetchone()
    author, action, target, description, serials, asked_ms, ends_ms, recipient = values
    named = tuple(json.loads(serials))
    view = ApprovalView(
        approval_id=approval_id,
        author=author,
        action=action,
        target=target,
        description=description,
        serials=named,
        usernames=("",) * len(named),
        asked_at_ms=asked_ms,
        ends_at_ms=ends_ms,
        approver="",
        recipient=recipient,
    )
    fields = {field.name for field in dataclasses.fields(ClientApproval)}
    client = ClientApproval(
        **{name: getattr(view, name, None) for name in fields} | {"serials": named}
    )
    return (
        (
            view.action,
            approval_words.target_of(view),
            approval_words.lines_of(view),
            recipient,
            named,
        ),
        (client.action, client.target, _description(client)),
    )


def seen_values(world: World) -> dict[str, set[Any]]:
    """Return the values of each field in all commands of a script."""
    seen: dict[str, set[Any]] = {}
    for _, calls in world.log:
        for call in calls:
            for field in dataclasses.fields(call.command):
                value = getattr(call.command, field.name)
                if isinstance(value, str | int | tuple):
                    seen.setdefault(field.name, set()).add(value)
    for field in ("serial", "replacement"):
        seen.setdefault(field, set()).update(seen.get("serial", set()))
    return seen


def held(world: World, call: Call) -> Result:
    """Apply a call as if there were a second super administrator, as in few scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approvals, "_other_approver", lambda *_: True)
        return world.apply(call)


def changes_nothing(world: World, command: Any, field: str, twin: Any) -> bool:
    """Return whether a twin asks for the same, or for what its service refuses."""
    if isinstance(twin, ReclaimMove) and field.endswith("_slot"):
        return bool(twin.part == command.part)  # One end alone stands for all slots.
    if isinstance(twin, UpdateToken):
        return twin.never_expires and twin.expires_at_ms is not None
    present = getattr(world.policy, field, "no field of the policy")
    return bool((present or 0) == getattr(twin, field))


def compared(world: Watched, before: int, call: Call) -> Iterator[str]:
    """Compare a request and its twins with each other; yield the compared fields."""
    known, at, different = seen_values(world), None, dict[object, object]()
    for number, (field, twin) in enumerate(twins(call.command, known)):
        if at is None:
            at = world.until(before)
            first = held(at, call)
            if not isinstance(first, ApprovalPending) or not waits(at, first):
                return  # It need not wait, or is a repeat of one that was decided.
            different.update(dict.fromkeys(words(at, first.approval_id), call.command))
        if changes_nothing(at, call.command, field, twin):
            continue
        request = dataclasses.replace(
            call.request, request_id=RequestId(f"twin{number}"), tag=number
        )
        second = held(at, dataclasses.replace(call, command=twin, request=request))
        if not isinstance(second, ApprovalPending):
            # A twin that need not wait has changed the state.
            at = at if isinstance(second, Rejected) else None
            continue
        if second.approval_id == first.approval_id:
            assert field in CODES, field  # A part of the tokens that wait.
            continue
        for shown in words(at, second.approval_id):
            assert different.setdefault(shown, twin) == twin, field
        at.db.execute(
            "DELETE FROM approvals WHERE approval_id = ?", (second.approval_id,)
        )
        yield field


def waits(world: World, pending: ApprovalPending) -> bool:
    return bool(
        world.db.execute(
            "SELECT 1 FROM approvals WHERE approval_id = ?", (pending.approval_id,)
        ).fetchone()
    )


@pytest.mark.parametrize(
    "kind",
    [each.__name__ for each in typing.get_args(Change)]
    + ["RequestBulkIssue", "IssueTokencodesInBulk", "SaveEmergencyAccess"],
)
def test_a_request_has_other_words_than_its_twin(
    kind: str,
) -> None:
    """(P3) What differs is what the approver has to decide by."""
    calls = all_scripts().get(kind, [])
    fields = {name for each in calls[:HITS_MAX] for name in compared(*each)}
    assert bool(fields) != (kind in TARGET_ALONE), fields


@pytest.mark.parametrize("kind", TARGET_ALONE)
def test_the_target_names_the_object_of_a_request(kind: str) -> None:
    """(P3) In no script two such requests wait at a time."""
    (command,) = (
        example(each, "") for each in typing.get_args(Command) if each.__name__ == kind
    )
    for field in TARGET_ALONE[kind]:
        twin = dataclasses.replace(command, **{field: type(getattr(command, field))(7)})
        db = World().db
        assert target_of(db, command) != target_of(db, twin), field

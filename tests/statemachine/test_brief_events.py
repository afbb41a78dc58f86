# SPDX-License-Identifier: Apache-2.0
"""An audit event has a bound, whatever its command holds (U1)."""

import dataclasses
import enum
import hashlib
import types
import typing
from typing import Any

import pytest

from sparecode_node.domain.agents import ALLOWED_USERS_MAX, GROUPS_MAX
from sparecode_node.domain.audit import (
    DETAIL_MAX,
    DETAILS_MAX,
    TEXT_MAX,
    AuditEvent,
    bounded,
)
from sparecode_node.domain.notices import CLASSES
from sparecode_node.services import fields
from sparecode_node.statemachine.commands import Command
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.handlers.agents import NAMES_SHOWN, _named
from tests.statemachine.world import World

COUNT = NAMES_SHOWN + 5
NAMES = [f"user-{number:02}" for number in range(COUNT)]


@pytest.fixture
def world() -> World:
    """Return a state of level 1 with an agent and some users."""
    world = World()
    world.begin()
    for name in NAMES:
        world.handle("create-user", {"name": name})
    return world


def change(world: World, **lists: list[str]) -> str:
    words = {option: ",".join(names) for option, names in lists.items()}
    world.handle("update-agent", {"name": "vpn", **words})
    (detail,) = world.db.execute(
        "SELECT detail FROM audit_events WHERE action = 'UpdateAgent' "
        "ORDER BY sequence DESC LIMIT 1"
    ).fetchone()
    return str(detail)


def test_a_long_list_is_shown_by_its_first_names_and_a_hash(world: World) -> None:
    """(U1) An auditor who has the list proves that it is the one that was applied."""
    world.handle("raise-feature-level", {"level": "2"})

    words = change(world, allow=NAMES)

    named = hashlib.sha256("".join(f"{name}\n" for name in NAMES).encode())
    assert words == (
        ", ".join(f"allows {name}" for name in NAMES[:NAMES_SHOWN])
        + f", allows 5 others (SHA-256 of all {COUNT} names, one a line: "
        f"{named.hexdigest()})"
    )
    gone = change(world, disallow=list(reversed(NAMES)))
    assert gone.startswith(f"no longer allows {NAMES[-1]}, no longer allows ")
    assert "no longer allows 5 others (SHA-256" in gone
    assert named.hexdigest() not in gone  # Of the names as they came.


def test_a_short_list_is_named_as_before(world: World) -> None:
    world.handle("raise-feature-level", {"level": "2"})
    shown = NAMES[:NAMES_SHOWN]
    assert change(world, allow=shown) == ", ".join(f"allows {name}" for name in shown)


def test_members_of_the_older_release_decide_alike(world: World) -> None:
    """(E1) Below level 2 the event has the words of 0.1.0: they are in its hash."""
    assert change(world, allow=NAMES) == ", ".join(f"allows {name}" for name in NAMES)


def test_the_longest_list_makes_a_short_event() -> None:
    """It was 2.4 MB, which every node keeps, archives and exports."""
    name = "n" * 128
    words = ", ".join(_named("no longer allows", [name] * ALLOWED_USERS_MAX, 2))
    assert len(words) < 4_000


LETTERS = 60_000
"""Of each text of a command here: more than any service lets through."""


def largest(kind: Any, known: str) -> Any:
    """Return the largest value of a field's type; *known*: the value of an identifier."""
    if known and getattr(kind, "__supertype__", None) is str:
        return known
    kind = getattr(kind, "__supertype__", kind)
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        return largest(typing.get_args(kind)[0], known)
    if typing.get_origin(kind) is tuple:
        each = typing.get_args(kind)[0]
        simple = getattr(each, "__supertype__", each) is str
        return ("n" * 128,) * 1_000 if simple else (largest(each, known),) * 3
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        values = {name: largest(hints[name], known) for name in hints}
        return typing.cast(Any, kind)(**values)
    if issubclass(kind, enum.Enum):
        return max(kind, key=lambda each: len(str(each.value)))
    return {int: 2**63 - 1, str: "x" * LETTERS, bytes: bytes(LETTERS), bool: True}[kind]


def largest_command(kind: type[Any], known: str) -> Any:
    command = largest(kind, known)
    for name in ("level", "feature_level"):
        if hasattr(command, name):  # An unknown level stops the node, as intended.
            command = dataclasses.replace(command, **{name: NEWEST})
    return command


def stored(world: World) -> list[AuditEvent]:
    names = [field.name for field in dataclasses.fields(AuditEvent)]
    rows = world.db.execute(
        f"SELECT {', '.join(names)} FROM audit_events ORDER BY sequence"  # noqa: S608
    )
    return [AuditEvent(**dict(zip(names, row, strict=True))) for row in rows]


def assert_bounded(event: AuditEvent) -> None:
    texts = (event.actor, event.target, event.reason)
    assert max(map(len, texts)) <= TEXT_MAX, event.action
    assert len(event.detail) <= DETAILS_MAX.get(event.action, DETAIL_MAX), event.action


@pytest.mark.parametrize("known", ["", "vpn", "user-00", "1001", "root", "n1"])
@pytest.mark.parametrize(
    "kind", typing.get_args(Command), ids=lambda kind: str(kind.__name__)
)
def test_the_largest_command_of_each_kind_makes_small_events(
    kind: type[Any], known: str, world: World
) -> None:
    """(U1) Refused ones, too: the words of a refusal may quote what was sent."""
    world.handle("enroll", {"serial": "1001"})
    world.handle("raise-feature-level", {"level": "2"})
    call = world.call("send-again", {"name": "any"})
    world.apply(dataclasses.replace(call, command=largest_command(kind, known)))
    for event in stored(world):
        assert_bounded(event)


@pytest.mark.parametrize("action", [*CLASSES, "AnActionOfANewerRelease"])
def test_the_largest_event_of_each_kind_keeps_its_ends_and_a_hash(action: str) -> None:
    """(U1) The end of a detail says who requested a change and who approved it."""
    words = "allows alice, " * 200_000
    approved = "; requested by root, approved by eve"
    event = AuditEvent(
        sequence=1,
        at_ms=1,
        actor="agent:" + "a" * LETTERS,
        node="n1",
        action=action,
        target="t" * LETTERS,
        outcome="applied",
        reason="r" * LETTERS,
        detail=words + approved,
    )
    small = bounded(event)
    assert_bounded(small)
    assert small.detail.startswith("allows alice, allows alice")
    assert small.detail.endswith(approved)
    assert hashlib.sha256(event.detail.encode()).hexdigest() in small.detail
    assert "more characters" in small.detail
    assert bounded(small) == small


def test_the_largest_valid_change_of_an_agent_is_recorded_whole(world: World) -> None:
    """(U1) All groups, the first users, and the hash of the others: nothing is cut."""
    world.handle("raise-feature-level", {"level": "2"})
    most = fields.ALLOWED_AT_ONCE_MAX
    users = [f"{number:03}".ljust(128, "n") for number in range(2 * most)]
    for name in users:
        world.handle("create-user", {"name": name})
    groups = [f"{number:03}".ljust(64, "g") for number in range(2 * GROUPS_MAX)]
    begin = {"name": "vpn", "allow": ",".join(users[:most])}
    world.handle("update-agent", begin | {"allow-group": ",".join(groups[:32])})
    lists = {
        "allow": users[most:],
        "disallow": users[:most],
        "allow-group": groups[32:],
        "disallow-group": groups[:32],
    }
    words = change(world, **lists)
    assert "more characters" not in words
    assert all(f"allows group {group}" in words for group in groups)
    assert words.count("SHA-256 of all 100 names") == 2
    assert len(words) > DETAIL_MAX

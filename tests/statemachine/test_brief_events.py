# SPDX-License-Identifier: Apache-2.0
"""An audit event of a long list of names has a bound (U1)."""

import hashlib

import pytest

from sparecode_node.domain.agents import ALLOWED_USERS_MAX
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

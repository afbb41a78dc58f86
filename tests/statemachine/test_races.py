# SPDX-License-Identifier: Apache-2.0
"""Concurrent calls: one log decides, and no legitimate user is harmed."""

from collections import Counter

import pytest

from sparecode_node.statemachine.results import Authenticated, Decision
from tests.statemachine.world import World

TRIES = 30


@pytest.fixture
def world() -> World:
    """Return a cluster in which Alice has a set of two codes."""
    world = World()
    world.begin()
    world.play(
        ("create-user", {"name": "alice"}),
        ("enroll", {"serial": "1001"}),
        ("assign", {"serial": "1001", "user": "alice"}),
        ("set-pin", {"serial": "1001", "pin": "1234"}),
        ("save", {"serial": "1001", "count": "2"}),
    )
    return world


def attempt(code: str, number: int = 0) -> dict[str, str]:
    return {"user": "alice", "pin": "1234", "code": code, "via": f"n{number % 3 + 1}"}


def decisions(results: tuple[object, ...]) -> Counter[Decision]:
    return Counter(each.decision for each in results if isinstance(each, Authenticated))


def test_thirty_guesses_in_one_entry_are_charged_once(world: World) -> None:
    """After the first the factor waits, and the rest are not evaluated (L5)."""
    calls = [world.call("authenticate", attempt(f"X/{n}", n)) for n in range(TRIES)]
    assert decisions(world.apply_batch(calls)) == {Decision.REFUSED: TRIES}
    failures = world.db.execute("SELECT factor, failures FROM lockouts").fetchall()
    assert failures == [("emergency", 1)]


def test_one_tokencode_is_accepted_once(world: World) -> None:
    """A spent step is never accepted again cluster-wide (K1)."""
    world.apply(world.call("reinstate", {"serial": "1001"}))
    arguments = {"user": "alice", "pin": "1234", "step": "0"}
    calls = [world.call("authenticate", arguments) for _ in range(TRIES)]
    expected = {Decision.ACCEPTED: 1, Decision.REFUSED: TRIES - 1}
    assert decisions(world.apply_batch(calls)) == expected


def test_a_code_and_its_recovered_token_exclude_each_other(world: World) -> None:
    """They race in one entry, and the first in the log wins (R, A3)."""
    arguments = {
        "serial": "1001",
        "set": "B",
        "recovery": "allow_and_disable",
        "weaken": "",
    }
    world.apply(world.call("save", arguments))
    token = world.call("authenticate", {"user": "alice", "pin": "1234", "step": "0"})
    code = world.call("authenticate", attempt("B/1"))
    first, second = world.apply_batch([token, code])
    assert decisions((first,)) == {Decision.ACCEPTED: 1}
    # Its candidates are of the earlier state; computed again, the code is void.
    assert not isinstance(second, Authenticated)
    again = world.apply(world.call("authenticate", attempt("B/1")))
    assert decisions((again,)) == {Decision.REFUSED: 1}

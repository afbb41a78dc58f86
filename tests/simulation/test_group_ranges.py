# SPDX-License-Identifier: Apache-2.0
"""Ranges of slots that move together, step by step: what the simulated operators rely on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from sparecode_client import slot_of
from sparecode_node.domain import tokencodes
from sparecode_node.domain.moves import MoveState, MoveTicket
from sparecode_node.services.secrets.move_seals import SealedPiece
from sparecode_node.statemachine.results import Decision
from tests.simulation.groups.group import Group, GroupBackup
from tests.simulation.groups.moves import (
    REMEMBERED_S,
    GroupMoves,
    MoveRefusedError,
    WaitingError,
)
from tests.simulation.groups.tokens import PERIOD_S, TokencodeTry

T = TypeVar("T")

FIRST, SECOND = "arno-v", "alma-y"
"""Users with tokens, in slots beside each other; the token of the second is HOTP."""
BOTH = range(slot_of(FIRST), slot_of(SECOND) + 1)


def taking(piece: SealedPiece) -> Callable[[GroupMoves, str], None]:
    return lambda moves, request: moves.take(piece, request)


@dataclass
class Clusters:
    """Some clusters, and the time."""

    now_s: float = 1000.0
    requests: int = 0
    groups: dict[str, Group] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Group:
        return self.groups[name]

    def found(self, **people: list[str]) -> None:
        """Create clusters with these users."""
        for name, users in people.items():
            group = self.groups[name] = Group(name, lambda: self.now_s)
            for user in users:
                group.add_token_user(user)
            group.appoint()

    def request(self) -> str:
        self.requests += 1
        return f"r{self.requests}"

    def step(self, group: str, do: Callable[[GroupMoves, str], T]) -> T:
        """Do a step of a move with its approval."""
        moves, request = self[group].moves, self.request()
        try:
            return do(moves, request)
        except WaitingError as waiting:
            self[group].approve(waiting.approval_id, self.request())
        return do(moves, self.request())

    def move(self, move_id: str, slots: range, source: str, target: str) -> "Moved":
        """Move slots, and return what operators have of that."""
        key = self[source].moves.key
        ticket = self.step(target, lambda m, r: m.prepare(move_id, slots, key, r))
        self.step(source, lambda m, r: m.freeze(ticket, r))
        before = self[target].back_up()
        for piece in self.step(source, lambda m, r: m.export(move_id, r)):
            self.step(target, taking(piece))
        receipt = self.step(target, lambda m, r: m.activate(move_id, r))
        self.step(source, lambda m, r: m.end(ticket, receipt, r))
        self.now_s += REMEMBERED_S + 1
        return Moved(ticket, receipt, before)

    def accepts(self, group: str, user: str, moment: int) -> bool:
        decision, _ = self[group].decide(
            TokencodeTry(user, moment=moment), self.request()
        )
        return decision is Decision.ACCEPTED


@dataclass(frozen=True)
class Moved:
    """A move that has ended."""

    ticket: MoveTicket
    receipt: bytes
    before: GroupBackup
    """The state of the target when it had expected the users, and had none."""


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clusters]:
    monkeypatch.setattr(tokencodes, "PERIODS_S", (PERIOD_S, *tokencodes.PERIODS_S))
    some = Clusters()
    yield some
    for group in some.groups.values():
        group.close()


def test_the_users_of_all_slots_keep_their_positions(clusters: Clusters) -> None:
    """A counter that the source has accepted is spent in the target (K1)."""
    clusters.found(east=[FIRST, SECOND], west=[])
    assert clusters.accepts("east", SECOND, 3)
    clusters.move("m1", BOTH, "east", "west")
    assert not clusters.accepts("west", SECOND, 3)
    assert clusters.accepts("west", SECOND, 4)


def test_a_restored_source_first_clears_a_slot_that_came_back(
    clusters: Clusters,
) -> None:
    """Else it refuses to freeze the users of the range, and serves one of them (E1)."""
    clusters.found(east=[FIRST], west=[], north=[SECOND])
    arrival = clusters.move("m1", BOTH[1:], "north", "east")
    both = clusters.move("m2", BOTH, "east", "west")
    east = clusters["east"]
    east.restore(arrival.before, "restore")
    assert [each for each in BOTH if east.has_users(each) and east.moves.serves(each)]

    def freeze() -> None:
        clusters.step("east", lambda m, r: m.freeze(both.ticket, r))

    with pytest.raises(MoveRefusedError, match="see the move m1"):
        freeze()
    with pytest.raises(MoveRefusedError, match="ten minutes"):
        clusters.step("east", lambda m, r: m.reclaim("m1", r))
    clusters.now_s += REMEMBERED_S
    clusters.step("east", lambda m, r: m.reclaim("m1", r))
    freeze()
    clusters.step("east", lambda m, r: m.end(both.ticket, both.receipt, r))
    assert east.moves.state_of("m2") is MoveState.GONE
    assert not any(east.moves.serves(each) for each in BOTH)


def test_users_who_came_together_are_taken_back_together(clusters: Clusters) -> None:
    """
    A user who has moved on would then be served twice.

    So no part of them moves on before the first cluster has deleted its copies
    (docs/clusters.md). The simulated operators keep to that.
    """
    clusters.found(east=[FIRST, SECOND], west=[], north=[])
    clusters.move("m1", BOTH, "east", "west")
    clusters.move("m2", BOTH[1:], "west", "north")
    clusters.step("east", lambda m, r: m.reclaim("m1", r))
    served = [
        (name, slot)
        for name in ("east", "north")
        for slot in BOTH
        if clusters[name].is_home(slot)
    ]
    assert served == [("east", BOTH[0]), ("east", BOTH[1]), ("north", BOTH[1])]

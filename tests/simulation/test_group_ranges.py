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
from sparecode_node.statemachine.handlers import moves as move_handlers
from sparecode_node.statemachine.results import Decision
from tests.simulation.groups.group import Group, GroupBackup
from tests.simulation.groups.moves import (
    DELETED_AFTER_MS,
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
        """Do a step of a move with its approval, and repeat it for its result."""
        moves = self[group].moves
        try:
            return do(moves, self.request())
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

    def open(self, group: str) -> None:
        """Open a restored cluster, with the approval."""
        self.step(group, lambda _, r: self[group].open(r))

    def homes_once_open(self, group: str) -> list[int]:
        """Return the slots whose users a cluster serves, as soon as it is open."""
        own = self[group]
        return [slot for slot in BOTH if own.has_users(slot) and own.moves.serves(slot)]

    def accepts(self, group: str, user: str, moment: int) -> bool:
        decided = self[group].decide(TokencodeTry(user, moment=moment), self.request())
        return decided.decision is Decision.ACCEPTED


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
    monkeypatch.setattr(move_handlers, "DELETED_AFTER_MS", DELETED_AFTER_MS)
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


@pytest.fixture
def restored(clusters: Clusters) -> Moved:
    """
    Return a move whose source was restored from before one of its slots came back.

    East serves FIRST in that state, and not SECOND, who was arriving.
    """
    clusters.found(east=[FIRST], west=[], north=[SECOND])
    arrival = clusters.move("m1", BOTH[1:], "north", "east")
    both = clusters.move("m2", BOTH, "east", "west")
    clusters["east"].restore(arrival.before, "restore")
    assert clusters.homes_once_open("east") == [BOTH[0]]
    return both


def test_a_restored_source_freezes_again_what_it_serves(
    clusters: Clusters, restored: Moved
) -> None:
    """Else it would serve one of the users, who are in the other cluster (E1)."""
    clusters.step("east", lambda m, r: m.freeze(restored.ticket, r))
    clusters.step("east", lambda m, r: m.end(restored.ticket, restored.receipt, r))
    east = clusters["east"]
    assert east.moves.state_of("m2") is MoveState.GONE
    assert clusters.homes_once_open("east") == []
    assert clusters.homes_once_open("west") == [*BOTH]
    assert east.moves.decided_by("m1", BOTH) == [*BOTH[1:]]


def test_users_who_were_frozen_in_part_are_not_exported_again(
    clusters: Clusters, restored: Moved
) -> None:
    """The target would serve the other slots, too, and lack or double their users."""
    clusters.step("east", lambda m, r: m.freeze(restored.ticket, r))
    with pytest.raises(MoveRefusedError, match="only some of its slots"):
        clusters.step("east", lambda m, r: m.export("m2", r))


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_slot_that_stayed_is_not_taken_back_once_it_has_moved_on(
    clusters: Clusters, restored: Moved, *, has_ended: bool
) -> None:
    """Its users are where the later move went."""
    ticket, receipt = restored.ticket, restored.receipt
    clusters.step("east", lambda m, r: m.freeze(ticket, r))
    if has_ended:
        clusters.step("east", lambda m, r: m.end(ticket, receipt, r))
    clusters.now_s += REMEMBERED_S + 1
    with pytest.raises(MoveRefusedError, match="moved on since the backup"):
        clusters.step("east", lambda m, r: m.reclaim("m1", r))
    # If the target is lost, the later move is taken back first.
    clusters.step("east", lambda m, r: m.reclaim("m2", r))
    clusters.step("east", lambda m, r: m.reclaim("m1", r))


def test_a_canceled_move_gives_back_what_was_frozen_in_part(clusters: Clusters) -> None:
    clusters.found(east=[FIRST], west=[], north=[SECOND])
    arrival = clusters.move("m1", BOTH[1:], "north", "east")
    key = clusters["east"].moves.key
    ticket = clusters.step("west", lambda m, r: m.prepare("m2", BOTH, key, r))
    clusters["east"].restore(arrival.before, "restore")
    clusters.step("east", lambda m, r: m.freeze(ticket, r))
    assert clusters.homes_once_open("east") == []
    receipt = clusters.step("west", lambda m, r: m.cancel("m2", r))
    clusters.step("east", lambda m, r: m.end(ticket, receipt, r))
    assert clusters.homes_once_open("east") == [BOTH[0]]


def test_no_part_is_frozen_while_another_move_of_the_rest_is_open(
    clusters: Clusters,
) -> None:
    """Its receipt may say that the slot is served here again."""
    clusters.found(east=[FIRST, SECOND], west=[], north=[])
    key = clusters["east"].moves.key
    first = clusters.step("north", lambda m, r: m.prepare("m1", BOTH[1:], key, r))
    clusters.step("east", lambda m, r: m.freeze(first, r))
    backup = clusters["east"].back_up()
    canceled = clusters.step("north", lambda m, r: m.cancel("m1", r))
    clusters.step("east", lambda m, r: m.end(first, canceled, r))
    both = clusters.move("m2", BOTH, "east", "west")
    clusters["east"].restore(backup, "restore")
    with pytest.raises(MoveRefusedError, match="see the move m1"):
        clusters.step("east", lambda m, r: m.freeze(both.ticket, r))
    clusters.step("east", lambda m, r: m.end(first, canceled, r))
    clusters.step("east", lambda m, r: m.freeze(both.ticket, r))
    clusters.step("east", lambda m, r: m.end(both.ticket, both.receipt, r))
    assert clusters.homes_once_open("east") == []


def test_no_part_without_users_is_frozen_again(clusters: Clusters) -> None:
    """Nobody there has moved, and the cluster may have lost the slot long ago."""
    clusters.found(east=[FIRST], west=[], north=[])
    clusters.move("m1", BOTH[:1], "east", "west")
    key, east = clusters["east"].moves.key, clusters["east"]
    ticket = clusters.step("north", lambda m, r: m.prepare("m2", BOTH, key, r))
    east.restore(east.back_up(), "recover")
    with pytest.raises(MoveRefusedError, match="see the move m1"):
        clusters.step("east", lambda m, r: m.freeze(ticket, r))


def test_an_open_cluster_freezes_all_slots_of_a_ticket_or_none(
    clusters: Clusters, restored: Moved
) -> None:
    clusters.open("east")
    with pytest.raises(MoveRefusedError, match="see the move m1"):
        clusters.step("east", lambda m, r: m.freeze(restored.ticket, r))


def test_a_part_of_a_move_is_taken_back_alone(clusters: Clusters) -> None:
    """A user who has moved on would else be served twice."""
    clusters.found(east=[FIRST, SECOND], west=[], north=[])
    clusters.move("m1", BOTH, "east", "west")
    clusters.move("m2", BOTH[1:], "west", "north")
    clusters.step("east", lambda m, r: m.reclaim("m1", r, BOTH[:1]))
    assert clusters.homes_once_open("east") == [BOTH[0]]
    assert clusters.homes_once_open("north") == [BOTH[1]]
    east = clusters["east"]
    assert east.moves.state_of("m1") is MoveState.GONE
    assert east.moves.find_of("m1", BOTH[0]).state is MoveState.RETURNED
    # What stays behind is deleted as ever, and the part is not.
    clusters.step("east", lambda m, r: m.delete("m1", r))
    assert [slot for slot in BOTH if east.has_users(slot)] == [BOTH[0]]


def test_a_restored_target_takes_back_a_part_of_a_whole_import(
    clusters: Clusters,
) -> None:
    """The source has deleted its copies, and other users have moved on."""
    clusters.found(east=[FIRST, SECOND], west=[], north=[])
    key, west = clusters["east"].moves.key, clusters["west"]
    ticket = clusters.step("west", lambda m, r: m.prepare("m1", BOTH, key, r))
    clusters.step("east", lambda m, r: m.freeze(ticket, r))
    for piece in clusters.step("east", lambda m, r: m.export("m1", r)):
        clusters.step("west", taking(piece))
    backup = west.back_up()
    receipt = clusters.step("west", lambda m, r: m.activate("m1", r))
    clusters.step("east", lambda m, r: m.end(ticket, receipt, r))
    clusters.move("m2", BOTH[1:], "west", "north")
    west.restore(backup, "restore")
    clusters.now_s += REMEMBERED_S + 1
    with pytest.raises(WaitingError) as waiting:
        west.moves.reclaim("m1", clusters.request(), BOTH[:1])
    west.approve(waiting.value.approval_id, clusters.request())
    assert clusters.homes_once_open("west") == [BOTH[0]]
    assert west.moves.state_of("m1") is MoveState.LOST
    clusters.step("west", lambda m, r: m.delete("m1", r))
    assert [slot for slot in BOTH if west.has_users(slot)] == [BOTH[0]]


def test_frozen_users_are_not_exported_once_a_part_was_taken_back(
    clusters: Clusters,
) -> None:
    """The part is served here again."""
    clusters.found(east=[FIRST, SECOND], west=[])
    key = clusters["east"].moves.key
    ticket = clusters.step("west", lambda m, r: m.prepare("m1", BOTH, key, r))
    clusters.step("east", lambda m, r: m.freeze(ticket, r))
    clusters.now_s += REMEMBERED_S + 1
    clusters.step("east", lambda m, r: m.reclaim("m1", r, BOTH[:1]))
    assert clusters["east"].moves.state_of("m1") is MoveState.LEAVING
    with pytest.raises(MoveRefusedError, match="only some of its slots"):
        clusters.step("east", lambda m, r: m.export("m1", r))


def test_a_part_leaves_out_what_a_later_move_has_brought(clusters: Clusters) -> None:
    clusters.found(east=[FIRST, SECOND], west=[])
    clusters.move("m1", BOTH, "east", "west")
    clusters.step("east", lambda m, r: m.delete("m1", r))
    clusters.move("m2", BOTH[1:], "west", "east")
    clusters.step("east", lambda m, r: m.reclaim("m1", r, BOTH))
    assert clusters["east"].moves.decided_by("m2", BOTH) == [*BOTH[1:]]


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (range(BOTH[0] - 1, BOTH[0] + 1), "the move has slots"),
        (BOTH[1:], "other moves decide"),
    ],
)
def test_only_slots_that_a_move_decides_are_taken_back(
    clusters: Clusters, part: range, why: str
) -> None:
    clusters.found(east=[FIRST, SECOND], west=[])
    clusters.move("m1", BOTH, "east", "west")
    clusters.step("east", lambda m, r: m.delete("m1", r))
    clusters.move("m2", BOTH[1:], "west", "east")
    with pytest.raises(MoveRefusedError, match=why):
        clusters.step("east", lambda m, r: m.reclaim("m1", r, part))

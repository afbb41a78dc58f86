# SPDX-License-Identifier: Apache-2.0
"""
The moves of one cluster: the real commands, and exports with real pieces.

Each step is a commit of the real state machine (`handlers/moves.py`). Exports are read by
the real queries, packed, encrypted and opened by the real code (`move_pieces`,
`MoveSeals`). Hashing alone is left out: the verifiers of the simulated people are words.
"""

import sqlite3
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from sparecode_node.domain.ids import KeyId, NameKey, TokenSerial, UserId
from sparecode_node.domain.moves import (
    ELSEWHERE,
    OPEN,
    Move,
    MoveState,
    MoveTicket,
    lock_of,
    proof_of,
)
from sparecode_node.domain.policy import Policy
from sparecode_node.queries import moves as move_queries
from sparecode_node.queries.moves import UserRows
from sparecode_node.queries.transaction import ReadTransaction, Value
from sparecode_node.services.cluster.move_pieces import Export, import_of
from sparecode_node.services.errors import Refused
from sparecode_node.services.secrets.kdf import TESTING, Secret
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.move_seals import MoveSeals, SealedPiece
from sparecode_node.statemachine.commands import Command
from sparecode_node.statemachine.commands.moves import (
    ActivateMove,
    CancelMove,
    DeleteMovedUsers,
    EndMove,
    ExportMovedUsers,
    FreezeUsers,
    PrepareMove,
    ReclaimMove,
)
from sparecode_node.statemachine.handlers.policy import find_policy
from sparecode_node.statemachine.tables import moves as move_tables
from tests.simulation.groups.tokens import BEGAN_MS, at_ms
from tests.simulation.people import KEY

REMEMBERED_S = 20.0
"""How long requests are remembered and repeated: ten minutes (Q3), scaled to a run."""
DELETED_AFTER_MS = 8_000
"""How long users of slots that are gone are kept: a day, scaled to a run."""
USERS_READ = 20
LEFT = (MoveState.LEAVING, MoveState.GONE)
"""What a source says of users who are, or may be, in the target."""
HASH_BYTES = 32

T = TypeVar("T")
Step = Callable[[Command, str], None]
"""Applies a command for a request id. Raises `MoveRefusedError` and `WaitingError`."""


class MoveRefusedError(Exception):
    """The rules forbid a step."""


class WaitingError(Exception):
    """A step waits for an approval."""

    def __init__(self, approval_id: int) -> None:
        super().__init__(f"approval {approval_id}")
        self.approval_id = approval_id


@dataclass(frozen=True)
class MoveKey:
    """By what a target knows the exports of a cluster."""

    cluster_id: str
    public_key: bytes


class WordSeals(MoveSeals):
    """Seals pieces and receipts as a node does; verifiers of people are words."""

    def hash_in(
        self, verifier: bytes, key_id: KeyId, secret: Secret, *belongs_to: str
    ) -> bytes:
        del key_id, secret, belongs_to
        return verifier.ljust(HASH_BYTES)

    def code_verifier(
        self, hashed: bytes, user: UserId, set_id: str, key_id: KeyId
    ) -> bytes:
        del user, set_id, key_id
        return hashed.rstrip()

    def name_tag(self, key: NameKey, key_id: KeyId) -> bytes:
        del key_id
        return key.encode()

    def seal_seed(self, serial: TokenSerial, seed: bytes, key_id: KeyId) -> bytes:
        del serial, key_id
        return seed

    def unseal_seed(self, serial: TokenSerial, sealed: bytes, key_id: KeyId) -> bytes:
        del serial, key_id
        return sealed

    def seed_fingerprints(self, seed: bytes) -> tuple[tuple[KeyId, bytes], ...]:
        return ((KEY, seed),)


def now_read(
    db: sqlite3.Connection, query: Callable[[ReadTransaction], Coroutine[Any, Any, T]]
) -> T:
    """Return the result of a query that waits for nothing."""
    running = query(ReadTransaction(connection=_Rows(db), applied_index=0))
    try:
        running.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a query has waited")


class _Rows:
    """The state of a cluster, for queries that wait for nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def execute_fetchall(
        self, sql: str, parameters: dict[str, Value] | None = None
    ) -> Iterable[sqlite3.Row]:
        cursor = self._db.cursor()
        cursor.row_factory = sqlite3.Row
        return cursor.execute(sql, parameters or {}).fetchall()


class GroupMoves:
    """The moves that one cluster knows, and its steps."""

    def __init__(
        self, name: str, db: sqlite3.Connection, step: Step, ring: KeyRing | None = None
    ) -> None:
        self._db = db
        self._step = step
        secret = name.encode().ljust(HASH_BYTES)
        self._ring = ring or KeyRing(cluster_id=name, active=KEY, keys={KEY: secret})
        self._seals = WordSeals(self._ring)
        self.key = MoveKey(name, self._seals.signature_key(KEY))

    def restored(self, cluster_id: str, db: sqlite3.Connection) -> "GroupMoves":
        """Return the moves in a restored state, with the ring of the new cluster."""
        return GroupMoves(
            cluster_id, db, self._step, self._ring.for_cluster(cluster_id)
        )

    def serves(self, slot: int) -> bool:
        """Return whether attempts of the slot's users are decided here."""
        move = self.newest_of(slot)
        return move is None or (move.state not in OPEN and move.state not in ELSEWHERE)

    def newest_of(self, slot: int) -> Move | None:
        """Return the move that decides whether a slot is served here."""
        return move_tables.newest_of(self._db, slot)

    def back_from_s(self, slot: int) -> float | None:
        """Return when a slot may be back that has left; None: it has not."""
        move = self.newest_of(slot)
        if move is None or move.state not in ELSEWHERE or move.ended_at_ms is None:
            return None
        return (move.ended_at_ms - BEGAN_MS) / 1000 + REMEMBERED_S

    def can_come(self, slots: Iterable[int], now_s: float) -> bool:
        """Return whether no slot is in a move here, or left within ten minutes."""
        newest = filter(None, map(self.newest_of, slots))
        since_ms = at_ms(now_s - REMEMBERED_S)
        return all(
            move.ended_at_ms is not None
            and (move.state not in ELSEWHERE or move.ended_at_ms <= since_ms)
            for move in newest
        )

    def decided_by(self, move_id: str, slots: Iterable[int]) -> list[int]:
        """Return the slots of which a move decides whether they are served here."""
        newest = ((slot, self.newest_of(slot)) for slot in slots)
        return [
            slot
            for slot, move in newest
            if move is not None and move.ticket.move_id == move_id
        ]

    def find(self, move_id: str) -> Move | None:
        """Return a move as this cluster knows it; None: it has not begun here."""
        return move_tables.find(self._db, move_id)

    def find_of(self, move_id: str, slot: int) -> Move | None:
        """Return a move, or the part with this slot that was taken back alone."""
        parts = (
            move
            for move in now_read(self._db, move_queries.every)
            if move.ticket.move_id.startswith(f"{move_id}/")
            and move.ticket.first_slot <= slot <= move.ticket.last_slot
        )
        return next(parts, None) or self.find(move_id)

    def state_of(self, move_id: str) -> MoveState | None:
        """Return what became of a move here; None: it has not begun."""
        move = self.find(move_id)
        return None if move is None else move.state

    def whole(self) -> frozenset[str]:
        """Return the moves to this cluster of which it has got all users."""
        moves = now_read(self._db, move_queries.every)
        return frozenset(move.ticket.move_id for move in moves if move.complete)

    # --- The target

    def prepare(
        self, move_id: str, slots: range, source: MoveKey, request: str
    ) -> MoveTicket:
        """Expect the users of a range of slots, and return the ticket; as it is, if the move has begun."""
        known = move_tables.find(self._db, move_id)
        if known is not None:
            return known.ticket
        self._step(
            PrepareMove(
                move_id=move_id,
                first_slot=slots[0],
                last_slot=slots[-1],
                source=source.cluster_id,
                source_key_id=KEY,
                source_key=source.public_key,
                public_key=self._seals.public_key(move_id, KEY),
                activated_lock=self._lock(move_id, MoveState.ACTIVE),
                canceled_lock=self._lock(move_id, MoveState.CANCELED),
                key_id=KEY,
                same_administrators=slots[0] % 2 == 0,
            ),
            request,
        )
        return self._move(move_id).ticket

    def take(self, piece: SealedPiece, request: str) -> None:
        """Import a piece."""
        move = self._move(piece.move_id)
        policy = find_policy(self._db) or Policy()
        try:
            command = import_of(self._seals, TESTING, move, policy, piece)
        except Refused as error:
            raise MoveRefusedError(error.rejected.detail) from error
        self._step(command, request)

    def activate(self, move_id: str, request: str) -> bytes:
        """Serve the slots; return the receipt."""
        self._step(ActivateMove(move_id=move_id), request)
        return self._receipt(move_id, MoveState.ACTIVE)

    def cancel(self, move_id: str, request: str) -> bytes:
        """Give the move up; return the receipt."""
        self._step(CancelMove(move_id=move_id), request)
        return self._receipt(move_id, MoveState.CANCELED)

    # --- The source

    def freeze(self, ticket: MoveTicket, request: str) -> None:
        """Decide nothing about the users any more, until the move has ended."""
        self._step(
            FreezeUsers.of(ticket),
            request,
        )

    def export(self, move_id: str, request: str) -> list[SealedPiece]:
        """Return the pieces of the frozen users."""
        self._step(ExportMovedUsers(move_id=move_id), request)
        ticket = self._move(move_id).ticket
        export = Export(self._seals, TESTING, ticket, find_policy(self._db) or Policy())
        rows = (row for user in self._users(ticket) for row in export.opened(user))
        full = [piece for row in rows if (piece := export.add(row)) is not None]
        return [*full, export.end()]

    def _users(self, ticket: MoveTicket) -> list[UserRows]:
        after = (-1, "")
        found: list[UserRows] = []

        async def read(transaction: ReadTransaction) -> list[UserRows]:
            return list(
                await move_queries.users_after(transaction, ticket, after, USERS_READ)
            )

        while users := now_read(self._db, read):
            found += users
            after = (users[-1].user["slot"], users[-1].user["name_key"])
        return found

    def end(self, ticket: MoveTicket, receipt: bytes, request: str) -> None:
        """Give the slots away, or serve them again, as the receipt says."""
        self._step(
            EndMove.of(ticket, receipt),
            request,
        )

    # --- Both

    def reclaim(self, move_id: str, request: str, part: range | None = None) -> None:
        """Serve the slots without a receipt, as far as one command does it."""
        first, last = (part[0], part[-1]) if part else (None, None)
        self._step(
            ReclaimMove(
                move_id=move_id, reason="it is lost", first_slot=first, last_slot=last
            ),
            request,
        )

    def delete(self, move_id: str, request: str) -> None:
        """Delete users of a move that is over, as far as one command does."""
        self._step(DeleteMovedUsers(move_id=move_id), request)

    def _receipt(self, move_id: str, end: MoveState) -> bytes:
        move = self._move(move_id)
        is_cleared = move.state is MoveState.CLEARED and move.canceled
        if move.state is not end and not (is_cleared and end is MoveState.CANCELED):
            raise MoveRefusedError(f"the move is over: it is {move.state}")
        return self._seals.receipt(move_id, end, KEY)

    def _lock(self, move_id: str, end: MoveState) -> bytes:
        return lock_of(proof_of(self._seals.receipt(move_id, end, KEY)))

    def _move(self, move_id: str) -> Move:
        move = move_tables.find(self._db, move_id)
        if move is None:
            raise MoveRefusedError(f"there is no move {move_id}")
        return move

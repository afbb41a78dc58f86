# SPDX-License-Identifier: Apache-2.0
"""Use cases: move users to or from another cluster (docs/clusters.md)."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.moves import (
    Move,
    MoveState,
    MoveTicket,
    lock_of,
    proof_of,
)
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.queries import moves
from sparecode_node.queries import policy as policies
from sparecode_node.queries.moves import UserRows
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services import fields
from sparecode_node.services.cluster import move_fields
from sparecode_node.services.cluster.move_pieces import Export, import_of
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.pacing import Pace
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.kdf import Kdf
from sparecode_node.services.secrets.keyring import UnknownKeyError
from sparecode_node.services.secrets.move_seals import (
    KEY_BYTES,
    MoveSeals,
    SealedPiece,
)
from sparecode_node.statemachine.commands.moves import (
    ActivateMove,
    CancelMove,
    DeleteMovedUsers,
    EndMove,
    ExportMovedUsers,
    FreezeUsers,
    ImportMovedUsers,
    PrepareMove,
    ReclaimMove,
)
from sparecode_node.statemachine.results import Applied

USERS_READ: Final = 20
"""Users whose rows are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveKey:
    """By what a target knows the exports of a cluster. No secret."""

    cluster_id: str
    key_id: int
    public_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedMove:
    """The end that a target has decided, and its proof."""

    index: int
    receipt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOutcome:
    """What became of a move by a step that ends it."""

    state: MoveState


class UserMoves:
    """
    Moves users between clusters, step by step; each step can be repeated.

    Every method raises `InvalidFieldError`, `NotSignedInError`, `NotPermittedError`,
    `Refused` and `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        replicator: Replicator,
        state: LocalState,
        seals: MoveSeals,
        kdf: Kdf,
        pace: Pace,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._replicator = replicator
        self._state = state
        self._seals = seals
        self._kdf = kdf
        self._pace = pace

    # --- Both clusters

    async def list(self, context: CallContext) -> tuple[Move, ...]:
        """Return all moves, the newest first."""
        read = await self._reader.read(
            context, lambda transaction, _: moves.every(transaction), stale_ok=False
        )
        return read.value

    async def key(self, context: CallContext) -> MoveKey:
        """Return the public key that verifies exports of this cluster."""
        read = await self._reader.read(
            context,
            lambda transaction, _: moves.cluster_id(transaction),
            stale_ok=False,
        )
        key_id = self._seals.active_key
        return MoveKey(
            cluster_id=read.value,
            key_id=key_id,
            public_key=self._seals.signature_key(key_id),
        )

    @idempotent
    async def delete(self, context: CallContext, *, move_id: str) -> bool:
        """
        Delete some users of a move that has ended; return whether more are left.

        In the source these are users of slots that are gone, after a day. In the target
        they are the users of a canceled import, or of one whose end a restore has lost.
        """
        command = DeleteMovedUsers(move_id=move_fields.move_id(move_id))
        deadline, result = await self._change(context, command)
        await self._replicator.wait_applied(result.index, timeout_s=deadline.left_s())
        async with self._state.transaction() as transaction:
            return await moves.has_users_of(transaction, move_id)

    # --- The target

    @idempotent
    async def prepare(
        self,
        context: CallContext,
        *,
        first_slot: int,
        last_slot: int,
        source: MoveKey,
        same_administrators: bool = False,
    ) -> MoveTicket:
        """
        Expect the users of some slots from another cluster; return the ticket.

        *source* verifies the export: approvers compare its digits with the source's.
        *same_administrators*: caller and approver vouch that an administrator of the
        source is the person of the same name here (I10).
        """
        move_fields.check_slots(first_slot, last_slot)
        if len(source.public_key) != KEY_BYTES:
            raise InvalidFieldError("source", "must be the move key of a cluster")
        fields.text(
            "source", source.cluster_id, at_least=1, at_most=move_fields.MOVE_ID_MAX
        )
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        move_id = self._seals.move_id(
            session.administrator, fields.request_id(context.request_id)
        )
        key_id = self._seals.active_key
        command = PrepareMove(
            move_id=move_id,
            first_slot=first_slot,
            last_slot=last_slot,
            source=source.cluster_id,
            source_key_id=source.key_id,
            source_key=source.public_key,
            public_key=self._seals.public_key(move_id, key_id),
            activated_lock=self._lock(move_id, MoveState.ACTIVE, key_id),
            canceled_lock=self._lock(move_id, MoveState.CANCELED, key_id),
            key_id=key_id,
            same_administrators=same_administrators,
        )
        result = applied(
            await self._proposer.propose(context, session, deadline, command)
        )
        move = await self._move(move_id, result.index, deadline)
        return move.ticket

    @idempotent
    async def import_piece(
        self, context: CallContext, *, piece: SealedPiece
    ) -> Applied:
        """Import the next piece of an export, or one that is imported already."""
        move_id = move_fields.move_id(piece.move_id)
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)

        async def prepare() -> ImportMovedUsers:
            async with self._state.transaction() as transaction:
                move = await moves.find(transaction, move_id)
                policy = await policies.current(transaction)
            if move is None:
                raise Refused(_unknown(move_id))
            return await asyncio.to_thread(
                import_of, self._seals, self._kdf.profile, move, policy, piece
            )

        async with self._pace.turn():
            result = await self._proposer.propose_prepared(
                context, session, deadline, prepare
            )
        return applied(result)

    @idempotent
    async def activate(self, context: CallContext, *, move_id: str) -> EndedMove:
        """Serve the slots of a move; return the receipt for the source."""
        return await self._decided(
            context,
            ActivateMove(move_id=move_fields.move_id(move_id)),
            MoveState.ACTIVE,
        )

    @idempotent
    async def cancel(self, context: CallContext, *, move_id: str) -> EndedMove:
        """Never serve the slots for this move; return the receipt for the source."""
        return await self._decided(
            context,
            CancelMove(move_id=move_fields.move_id(move_id)),
            MoveState.CANCELED,
        )

    async def _decided(
        self, context: CallContext, command: ActivateMove | CancelMove, end: MoveState
    ) -> EndedMove:
        deadline, result = await self._change(context, command)
        move = await self._move(command.move_id, result.index, deadline)
        is_cleared = move.state is MoveState.CLEARED and move.canceled
        if move.state is not end and not (is_cleared and end is MoveState.CANCELED):
            raise Refused(
                Rejected(Reason.MOVE_STEP, f"the move is over: it is {move.state}")
            )
        receipt = self._seals.receipt(command.move_id, end, KeyId(move.key_id))
        return EndedMove(index=result.index, receipt=receipt)

    def _lock(self, move_id: str, end: MoveState, key_id: KeyId) -> bytes:
        return lock_of(proof_of(self._seals.receipt(move_id, end, key_id)))

    # --- The source

    @idempotent
    async def freeze(self, context: CallContext, *, ticket: MoveTicket) -> Applied:
        """Serve the slots of a ticket no more, until the move has ended."""
        move_fields.check_ticket(ticket)
        try:
            self._seals.signature_key(KeyId(ticket.source_key_id))
        except UnknownKeyError:
            raise Refused(_OLD_KEY) from None
        _, result = await self._change(
            context,
            FreezeUsers.of(ticket),
        )
        return result

    @idempotent
    async def export(
        self, context: CallContext, *, move_id: str
    ) -> AsyncGenerator[SealedPiece, None]:
        """
        Return the pieces of the export of a frozen move, encrypted for its target.

        A command in the log permits and records it.
        """
        command = ExportMovedUsers(move_id=move_fields.move_id(move_id))
        deadline, result = await self._change(context, command)
        move = await self._move(move_id, result.index, deadline)
        return self._pieces(move.ticket)

    async def _pieces(self, ticket: MoveTicket) -> AsyncGenerator[SealedPiece, None]:
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
        export = Export(self._seals, self._kdf.profile, ticket, policy)
        async for user in self._users(ticket):
            for row in await asyncio.to_thread(export.opened, user):
                if (piece := export.add(row)) is not None:
                    yield piece
        yield export.end()

    async def _users(self, ticket: MoveTicket) -> AsyncGenerator[UserRows, None]:
        """Yield the rows of all users of a move, who are frozen meanwhile."""
        after = (-1, "")
        while True:
            async with self._state.transaction() as transaction:
                move = await moves.find(transaction, ticket.move_id)
                is_whole = await moves.decides_all(transaction, ticket)
                users = await moves.users_after(transaction, ticket, after, USERS_READ)
            if move is None or move.state is not MoveState.LEAVING or not is_whole:
                raise Refused(Rejected(Reason.MOVE_STEP, "the move is over"))
            if not users:
                return
            for user in users:
                yield user
            last = users[-1].user
            after = (last["slot"], last["name_key"])

    @idempotent
    async def end(
        self, context: CallContext, *, ticket: MoveTicket, receipt: bytes
    ) -> MoveOutcome:
        """Give the slots away, or serve them again, as the target's receipt says."""
        move_fields.check_ticket(ticket)
        if len(receipt) != KEY_BYTES:
            raise InvalidFieldError("receipt", "must be the receipt of a move")
        deadline, result = await self._change(
            context,
            EndMove.of(ticket, receipt),
        )
        move = await self._move(ticket.move_id, result.index, deadline)
        return MoveOutcome(state=move.state)

    @idempotent
    async def reclaim(
        self,
        context: CallContext,
        *,
        move_id: str,
        reason: str,
        first_slot: int | None = None,
        last_slot: int | None = None,
    ) -> MoveOutcome:
        """
        Serve the slots again without a receipt; `RECLAIMING`: users are left.

        With *first_slot* and *last_slot* these alone: the others stay as they are.
        """
        fields.text("reason", reason, at_least=1, at_most=fields.NOTE_MAX)
        part = move_fields.part(first_slot, last_slot)
        command = ReclaimMove(
            move_id=move_fields.move_id(move_id),
            reason=reason,
            first_slot=first_slot,
            last_slot=last_slot,
        )
        deadline, result = await self._change(context, command)
        move = await self._move(move_id, result.index, deadline, part)
        return MoveOutcome(state=move.state)

    async def _change(
        self,
        context: CallContext,
        command: ActivateMove
        | CancelMove
        | DeleteMovedUsers
        | EndMove
        | ExportMovedUsers
        | FreezeUsers
        | ReclaimMove,
    ) -> tuple[Deadline, Applied]:
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        result = await self._proposer.propose(context, session, deadline, command)
        return deadline, applied(result)

    async def _move(
        self,
        move_id: str,
        index: int,
        deadline: Deadline,
        part: range | None = None,
    ) -> Move:
        """Return a move, or its part, as this node knows it after *index*."""
        await self._replicator.wait_applied(index, timeout_s=deadline.left_s())
        async with self._state.transaction() as transaction:
            move = await moves.find_part(transaction, move_id, part)
        if move is None:
            raise Refused(_unknown(move_id))
        return move


_OLD_KEY: Final = Rejected(
    Reason.MOVE_STEP,
    "the key ring no longer has the key that the target knows: cancel the move there, "
    "and prepare another with the present key",
)


def _unknown(move_id: str) -> Rejected:
    return Rejected(Reason.MOVE_UNKNOWN, f"there is no move {move_id}", "move_id")

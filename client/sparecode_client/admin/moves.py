# SPDX-License-Identifier: Apache-2.0
"""Calls that move users between clusters."""

from collections.abc import Callable
from datetime import timedelta

from google.protobuf.message import DecodeError

from sparecode.v1 import moves_pb2
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import commit_in, enum_in, time_in
from sparecode_client.values.moves import (
    EXPORT_HEADER,
    Move,
    MoveFileError,
    MoveKey,
    MoveReceipt,
    MoveState,
    MoveTicket,
    framed,
)
from sparecode_client.values.results import Commit


def move_of(piece: bytes) -> str:
    """Return the id of the move that a piece of an export belongs to."""
    return _piece(piece).move_id


def is_last(piece: bytes) -> bool:
    """Return whether an export ends with this piece."""
    return _piece(piece).last


def _piece(piece: bytes) -> moves_pb2.SealedPiece:
    try:
        return moves_pb2.SealedPiece.FromString(piece)
    except DecodeError:
        raise MoveFileError("the export is damaged") from None


class UserMoves(Caller):
    """`MoveService`. Each step can be repeated; docs/clusters.md has their order."""

    async def list_moves(self, *, within: timedelta | None = None) -> tuple[Move, ...]:
        """Return all moves of users to or from this cluster, the newest first."""
        answer = await self._client.unary(
            lambda node: node.moves.ListMoves,
            moves_pb2.ListMovesRequest(),
            within=within,
        )
        return tuple(_move(each) for each in answer.moves)

    async def get_move_key(self, *, within: timedelta | None = None) -> MoveKey:
        """Return the public key by which targets know exports of this cluster."""
        answer = await self._client.unary(
            lambda node: node.moves.GetMoveKey,
            moves_pb2.GetMoveKeyRequest(),
            within=within,
        )
        return MoveKey(
            cluster_id=answer.key.cluster_id,
            key_id=answer.key.key_id,
            public_key=answer.key.public_key,
        )

    async def prepare_move(
        self,
        first_slot: int,
        last_slot: int,
        source: MoveKey,
        *,
        same_administrators: bool = False,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> MoveTicket:
        """
        In the target: expect the users of some slots of the cluster with the key *source*.

        *same_administrators*: you vouch that an administrator of the source is the person
        who has the same name here, and has no other name here. Return the ticket for the
        source. Raises `ApprovalNeeded`; `list_moves` has the ticket after the approval.
        """
        answer = await self._client.unary(
            lambda node: node.moves.PrepareMove,
            moves_pb2.PrepareMoveRequest(
                request_id=request_id or new_request_id(),
                first_slot=first_slot,
                last_slot=last_slot,
                source=moves_pb2.MoveKey(
                    cluster_id=source.cluster_id,
                    key_id=source.key_id,
                    public_key=source.public_key,
                ),
                same_administrators=same_administrators,
            ),
            within=within,
        )
        return _ticket(answer.ticket)

    async def freeze_users(
        self,
        ticket: MoveTicket,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """In the source: freeze the users of a ticket. Raises `ApprovalNeeded`."""
        answer = await self._client.unary(
            lambda node: node.moves.FreezeUsers,
            moves_pb2.FreezeUsersRequest(
                request_id=request_id or new_request_id(), ticket=_wire(ticket)
            ),
            within=within,
        )
        return commit_in(answer.commit)

    async def export_moved_users(
        self,
        move_id: str,
        begin: Callable[[], object],
        write: Callable[[bytes], object],
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> int:
        """
        In the source: write the frozen users, encrypted for the target.

        Return the number of pieces. *begin* is called before the first one. If a node
        breaks off, another one starts over: *begin* is called again, and what was
        written before is void.
        """
        request_id = request_id or new_request_id()
        count, complete = 0, False

        def take(answer: moves_pb2.ExportMovedUsersResponse) -> bool:
            nonlocal count, complete
            if answer.piece.number == 0:
                begin()
                write(EXPORT_HEADER)
                count = 0
            if answer.piece.number != count:
                raise ValueError("a piece of the export is missing")
            write(framed(answer.piece.SerializeToString(deterministic=True)))
            count += 1
            complete = answer.piece.last
            return False

        await self._client.stream_out(
            lambda node: node.moves.ExportMovedUsers,
            lambda: moves_pb2.ExportMovedUsersRequest(
                request_id=request_id, move_id=move_id
            ),
            take,
            request_id=request_id,
            within=within,
        )
        if not complete:
            raise ValueError("the last piece of the export is missing")
        return count

    async def import_moved_users(
        self,
        piece: bytes,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        In the target: import the next piece of an export.

        A piece that is imported already is left alone. Raises `MoveFileError` if it is
        no piece.
        """
        sealed = _piece(piece)
        answer = await self._client.unary(
            lambda node: node.moves.ImportMovedUsers,
            moves_pb2.ImportMovedUsersRequest(
                request_id=request_id or new_request_id(), piece=sealed
            ),
            within=within,
        )
        return commit_in(answer.commit)

    async def activate_move(
        self,
        move_id: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> MoveReceipt:
        """In the target: serve the slots. Raises `ApprovalNeeded`."""
        answer = await self._client.unary(
            lambda node: node.moves.ActivateMove,
            moves_pb2.ActivateMoveRequest(
                request_id=request_id or new_request_id(), move_id=move_id
            ),
            within=within,
        )
        return MoveReceipt(move_id=move_id, receipt=answer.receipt)

    async def cancel_move(
        self,
        move_id: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> MoveReceipt:
        """In the target: never serve the slots for this move."""
        answer = await self._client.unary(
            lambda node: node.moves.CancelMove,
            moves_pb2.CancelMoveRequest(
                request_id=request_id or new_request_id(), move_id=move_id
            ),
            within=within,
        )
        return MoveReceipt(move_id=move_id, receipt=answer.receipt)

    async def end_move(
        self,
        ticket: MoveTicket,
        receipt: MoveReceipt,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> MoveState | None:
        """In the source: give the slots away, or serve them again, as the receipt says."""
        answer = await self._client.unary(
            lambda node: node.moves.EndMove,
            moves_pb2.EndMoveRequest(
                request_id=request_id or new_request_id(),
                ticket=_wire(ticket),
                receipt=receipt.receipt,
            ),
            within=within,
        )
        return enum_in(MoveState, moves_pb2.MoveState, answer.state)

    async def reclaim_move(
        self,
        move_id: str,
        reason: str,
        *,
        first_slot: int | None = None,
        last_slot: int | None = None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> MoveState | None:
        """
        Serve slots again without a receipt, because no other cluster ever will.

        Call it again while it returns `RECLAIMING`: more users are left. Codes of the
        users are void, because the target may have accepted some. If the target lives,
        tokencodes work in both clusters. Raises `ApprovalNeeded`.

        *first_slot* and *last_slot* take back these slots alone, if the users of others
        have moved on. They become a move of their own; the others stay as they are.
        """
        answer = await self._client.unary(
            lambda node: node.moves.ReclaimMove,
            moves_pb2.ReclaimMoveRequest(
                request_id=request_id or new_request_id(),
                move_id=move_id,
                reason=reason,
                first_slot=first_slot,
                last_slot=last_slot,
            ),
            within=within,
        )
        return enum_in(MoveState, moves_pb2.MoveState, answer.state)

    async def delete_moved_users(
        self,
        move_id: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> bool:
        """
        Delete some users of a move that has ended; return whether more are left.

        In the source these are users of slots that are gone, after a day. In the target
        they are the users of a canceled import, or of one whose end a restore has lost:
        its first call needs an approval, because this may be the only copy.
        """
        answer = await self._client.unary(
            lambda node: node.moves.DeleteMovedUsers,
            moves_pb2.DeleteMovedUsersRequest(
                request_id=request_id or new_request_id(), move_id=move_id
            ),
            within=within,
        )
        return answer.more


def _move(move: moves_pb2.Move) -> Move:
    return Move(
        ticket=_ticket(move.ticket),
        state=enum_in(MoveState, moves_pb2.MoveState, move.state),
        begin_time=time_in(move, "begin_time"),
        end_time=time_in(move, "end_time"),
        pieces=move.pieces,
        complete=move.complete,
        users=move.users,
    )


def _ticket(ticket: moves_pb2.MoveTicket) -> MoveTicket:
    return MoveTicket(
        move_id=ticket.move_id,
        first_slot=ticket.first_slot,
        last_slot=ticket.last_slot,
        source=ticket.source,
        target=ticket.target,
        source_key_id=ticket.source_key_id,
        public_key=ticket.public_key,
        activated_lock=ticket.activated_lock,
        canceled_lock=ticket.canceled_lock,
        same_administrators=ticket.same_administrators,
    )


def _wire(ticket: MoveTicket) -> moves_pb2.MoveTicket:
    return moves_pb2.MoveTicket(
        move_id=ticket.move_id,
        first_slot=ticket.first_slot,
        last_slot=ticket.last_slot,
        source=ticket.source,
        target=ticket.target,
        source_key_id=ticket.source_key_id,
        public_key=ticket.public_key,
        activated_lock=ticket.activated_lock,
        canceled_lock=ticket.canceled_lock,
        same_administrators=ticket.same_administrators,
    )

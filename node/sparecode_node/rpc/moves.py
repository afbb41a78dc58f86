# SPDX-License-Identifier: Apache-2.0
"""`MoveService`: users go from one cluster to another."""

from collections.abc import AsyncIterator

from sparecode.v1 import moves_pb2 as pb
from sparecode.v1 import moves_pb2_grpc as pb_grpc
from sparecode_node.domain.moves import Move, MoveState, MoveTicket
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.services.cluster.user_moves import MoveKey, UserMoves
from sparecode_node.services.secrets.move_seals import SealedPiece

STATES = {
    MoveState.ARRIVING: pb.MOVE_STATE_ARRIVING,
    MoveState.ACTIVE: pb.MOVE_STATE_ACTIVE,
    MoveState.CANCELED: pb.MOVE_STATE_CANCELED,
    MoveState.LEAVING: pb.MOVE_STATE_LEAVING,
    MoveState.GONE: pb.MOVE_STATE_GONE,
    MoveState.RETURNED: pb.MOVE_STATE_RETURNED,
    MoveState.NEVER: pb.MOVE_STATE_NEVER,
    MoveState.LOST: pb.MOVE_STATE_LOST,
    MoveState.RECLAIMING: pb.MOVE_STATE_RECLAIMING,
    MoveState.CLEARED: pb.MOVE_STATE_CLEARED,
}


class MoveServicer(pb_grpc.MoveServiceServicer):
    """Translates between the wire and `UserMoves`."""

    def __init__(self, node_id: str, moves: UserMoves) -> None:
        self._node_id = node_id
        self._moves = moves

    async def ListMoves(
        self, request: pb.ListMovesRequest, context: Context
    ) -> pb.ListMovesResponse:
        """Return all moves."""
        del request
        moves = await self._moves.list(
            calls.session_call(context, "MoveService/ListMoves")
        )
        return pb.ListMovesResponse(moves=[_move(each) for each in moves])

    async def GetMoveKey(
        self, request: pb.GetMoveKeyRequest, context: Context
    ) -> pb.GetMoveKeyResponse:
        """Return the key that verifies exports."""
        del request
        key = await self._moves.key(
            calls.session_call(context, "MoveService/GetMoveKey")
        )
        return pb.GetMoveKeyResponse(
            key=pb.MoveKey(
                cluster_id=key.cluster_id,
                key_id=key.key_id,
                public_key=key.public_key,
            )
        )

    async def PrepareMove(
        self, request: pb.PrepareMoveRequest, context: Context
    ) -> pb.PrepareMoveResponse:
        """Expect users."""
        ticket = await self._moves.prepare(
            calls.session_call(context, "MoveService/PrepareMove", request.request_id),
            first_slot=request.first_slot,
            last_slot=request.last_slot,
            source=MoveKey(
                cluster_id=request.source.cluster_id,
                key_id=request.source.key_id,
                public_key=request.source.public_key,
            ),
            same_administrators=request.same_administrators,
        )
        return pb.PrepareMoveResponse(ticket=_ticket(ticket))

    async def FreezeUsers(
        self, request: pb.FreezeUsersRequest, context: Context
    ) -> pb.FreezeUsersResponse:
        """Freeze users."""
        applied = await self._moves.freeze(
            calls.session_call(context, "MoveService/FreezeUsers", request.request_id),
            ticket=_ticket_in(request.ticket),
        )
        return pb.FreezeUsersResponse(commit=conversion.commit(self._node_id, applied))

    async def ExportMovedUsers(
        self, request: pb.ExportMovedUsersRequest, context: Context
    ) -> AsyncIterator[pb.ExportMovedUsersResponse]:
        """Stream frozen users."""
        pieces = await self._moves.export(
            calls.session_call(
                context, "MoveService/ExportMovedUsers", request.request_id
            ),
            move_id=request.move_id,
        )
        async for piece in pieces:
            yield pb.ExportMovedUsersResponse(
                piece=pb.SealedPiece(
                    move_id=piece.move_id,
                    number=piece.number,
                    chain=piece.chain,
                    last=piece.last,
                    sealed=piece.sealed,
                    signature=piece.signature,
                )
            )

    async def ImportMovedUsers(
        self, request: pb.ImportMovedUsersRequest, context: Context
    ) -> pb.ImportMovedUsersResponse:
        """Import a piece."""
        piece = request.piece
        applied = await self._moves.import_piece(
            calls.session_call(
                context, "MoveService/ImportMovedUsers", request.request_id
            ),
            piece=SealedPiece(
                move_id=piece.move_id,
                number=piece.number,
                chain=piece.chain,
                last=piece.last,
                sealed=piece.sealed,
                signature=piece.signature,
            ),
        )
        return pb.ImportMovedUsersResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def ActivateMove(
        self, request: pb.ActivateMoveRequest, context: Context
    ) -> pb.ActivateMoveResponse:
        """Serve the slots."""
        ended = await self._moves.activate(
            calls.session_call(context, "MoveService/ActivateMove", request.request_id),
            move_id=request.move_id,
        )
        return pb.ActivateMoveResponse(receipt=ended.receipt)

    async def CancelMove(
        self, request: pb.CancelMoveRequest, context: Context
    ) -> pb.CancelMoveResponse:
        """Never serve the slots for this move."""
        ended = await self._moves.cancel(
            calls.session_call(context, "MoveService/CancelMove", request.request_id),
            move_id=request.move_id,
        )
        return pb.CancelMoveResponse(receipt=ended.receipt)

    async def EndMove(
        self, request: pb.EndMoveRequest, context: Context
    ) -> pb.EndMoveResponse:
        """End a move in the source."""
        ended = await self._moves.end(
            calls.session_call(context, "MoveService/EndMove", request.request_id),
            ticket=_ticket_in(request.ticket),
            receipt=request.receipt,
        )
        return pb.EndMoveResponse(state=STATES[ended.state])

    async def ReclaimMove(
        self, request: pb.ReclaimMoveRequest, context: Context
    ) -> pb.ReclaimMoveResponse:
        """Serve some of the slots again."""
        outcome = await self._moves.reclaim(
            calls.session_call(context, "MoveService/ReclaimMove", request.request_id),
            move_id=request.move_id,
            reason=request.reason,
            first_slot=request.first_slot if request.HasField("first_slot") else None,
            last_slot=request.last_slot if request.HasField("last_slot") else None,
        )
        return pb.ReclaimMoveResponse(state=STATES[outcome.state])

    async def DeleteMovedUsers(
        self, request: pb.DeleteMovedUsersRequest, context: Context
    ) -> pb.DeleteMovedUsersResponse:
        """Delete some users."""
        more = await self._moves.delete(
            calls.session_call(
                context, "MoveService/DeleteMovedUsers", request.request_id
            ),
            move_id=request.move_id,
        )
        return pb.DeleteMovedUsersResponse(more=more)


def _move(move: Move) -> pb.Move:
    return pb.Move(
        ticket=_ticket(move.ticket),
        state=STATES[move.state],
        begin_time=conversion.timestamp(move.began_at_ms),
        end_time=conversion.timestamp(move.ended_at_ms),
        pieces=move.pieces,
        complete=move.complete,
        users=move.users,
    )


def _ticket(ticket: MoveTicket) -> pb.MoveTicket:
    return pb.MoveTicket(
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


def _ticket_in(ticket: pb.MoveTicket) -> MoveTicket:
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

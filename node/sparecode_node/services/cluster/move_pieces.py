# SPDX-License-Identifier: Apache-2.0
"""
The pieces of an export of users: packed in the source, opened in the target.

Nothing here reads or changes the state, so `UserMoves` and the simulation of several
clusters use the same code.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.moves import (
    NO_PIECES,
    OTHER_EXPORT,
    Move,
    MoveState,
    MoveTicket,
)
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.queries.moves import Row, UserRows, policy_words
from sparecode_node.services.cluster import move_fields
from sparecode_node.services.cluster.moved_rows import (
    HEADER,
    NamedRow,
    content_of,
    opened_rows,
    rows_in,
    sealed_rows,
)
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.secrets.kdf import Argon2Parameters
from sparecode_node.services.secrets.move_seals import (
    BrokenPieceError,
    MoveSeals,
    SealedPiece,
    next_chain,
)
from sparecode_node.services.secrets.sealing import BrokenSealError
from sparecode_node.statemachine.commands.moves import ImportMovedUsers

CONTENT_BYTES: Final = 8 * 1024
"""A piece is closed at this size. Sealed again, it fits into one command."""
ROWS_MAX: Final = 100
"""Rows of a piece: applying it blocks the engine's thread."""


class Export:
    """Packs the rows of one move into pieces for its target."""

    def __init__(
        self,
        seals: MoveSeals,
        profile: Argon2Parameters,
        ticket: MoveTicket,
        policy: Policy,
    ) -> None:
        self._seals = seals
        self._ticket = ticket
        self._rows: list[NamedRow] = [(HEADER, _header(profile, policy))]
        self._number, self._chain, self._size = 0, NO_PIECES, 0

    def opened(self, user: UserRows) -> list[NamedRow]:
        """
        Return the rows of a user without this cluster's seals.

        Raises `Refused` if a row was altered, and `UnknownKeyError` if this node lacks a
        key of the ring: another node may have it.
        """
        try:
            return opened_rows(self._seals, user)
        except BrokenSealError as error:
            raise _refused(
                f"the secrets of user {user.user['username']} do not open: {error}"
            ) from error

    def add(self, row: NamedRow) -> SealedPiece | None:
        """Add a row; return the piece before it if that is full."""
        length = len(content_of([row]))
        is_full = self._rows and (
            self._size + length > CONTENT_BYTES or len(self._rows) >= ROWS_MAX
        )
        piece = self._piece(last=False) if is_full else None
        self._rows.append(row)
        self._size += length
        return piece

    def end(self) -> SealedPiece:
        """Return the last piece."""
        return self._piece(last=True)

    def _piece(self, *, last: bool) -> SealedPiece:
        content = content_of(self._rows)
        self._chain = next_chain(self._chain, content)
        piece = self._seals.seal_piece(
            self._ticket, content, number=self._number, chain=self._chain, last=last
        )
        self._number, self._rows, self._size = self._number + 1, [], 0
        return piece


def import_of(
    seals: MoveSeals,
    profile: Argon2Parameters,
    move: Move,
    policy: Policy,
    piece: SealedPiece,
) -> ImportMovedUsers:
    """
    Open a piece, and return its import, sealed for this cluster's ring.

    It has no rows if the piece is not the next one of the move: apply compares it with
    those that are imported. Raises `Refused` (`MOVE_EXPORT`) and `UnknownKeyError`.
    """
    key_id = seals.active_key
    command = ImportMovedUsers(
        move_id=piece.move_id,
        number=piece.number,
        chain=piece.chain,
        last=piece.last,
        key_id=key_id,
        rows=b"",
    )
    if move.state is not MoveState.ARRIVING:
        return command  # Apply answers that the move is over.
    try:
        if piece.number != move.pieces:
            seals.verify_piece(move.ticket, piece, source_key=move.source_key)
            # If it is the next piece meanwhile, this runs again.
            return command
        content = seals.open_piece(
            move.ticket, piece, key_id=KeyId(move.key_id), source_key=move.source_key
        )
        if next_chain(move.chain, content) != piece.chain:
            raise _refused(OTHER_EXPORT)
        rows = rows_in(content)
        if piece.number == 0:
            _check_source(rows, _header(profile, policy))
        for kind, row in rows:
            move_fields.check_row(kind, row)
        sealed = content_of(sealed_rows(seals, rows, key_id))
    except BrokenPieceError as error:
        raise _refused(f"{error}: write the export again") from None
    except InvalidFieldError as error:
        raise _refused(f"a row of the export is refused: {error}") from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _refused("the export does not fit this release") from error
    return replace(command, rows=sealed)


def _check_source(rows: Sequence[NamedRow], ours: Row) -> None:
    """Refuse users whose codes and PINs this cluster would not read alike."""
    kind, theirs = rows[0]
    if kind != HEADER:
        raise ValueError(kind)
    if theirs["hashing"] != ours["hashing"]:
        raise _refused("the two clusters hash with different settings")
    if theirs["code_alphabet"] != ours["code_alphabet"]:
        raise _refused(
            "the policies of the two clusters have different values of code_alphabet"
        )
    if lacking := sorted({*theirs["code_lengths"]} - {*ours["code_lengths"]}):
        words = ", ".join(map(str, lacking))
        raise _refused(
            "the policy of this cluster must accept codes of the length "
            f"{words}: add it to further_code_lengths"
        )
    if theirs["pin_letters"] and not ours["pin_letters"]:
        raise _refused("the policy of this cluster must allow pin_letters")


def _header(profile: Argon2Parameters, policy: Policy) -> Row:
    return {
        "hashing": f"argon2id {profile.memory_kib} {profile.passes}",
        **policy_words(policy),
    }


def _refused(detail: str) -> Refused:
    return Refused(Rejected(Reason.MOVE_EXPORT, detail))

# SPDX-License-Identifier: Apache-2.0
"""
Moves of users from one cluster to another, as each of the two keeps them.

No commit spans two clusters. The target decides how a move ends, and proves it to the
source by a receipt, of which the ticket of the move has the hash (docs/clusters.md).
"""

import enum
import hashlib
import json
from dataclasses import dataclass
from typing import Final

from sparecode_node.domain.policy import DAY_MS

DELETED_AFTER_MS: Final = DAY_MS
"""How long the source keeps the users of slots that are gone."""

RECEIPTS_KEPT_MS: Final = DAY_MS
"""How long after its end a move keeps the key of the ring that makes its receipts."""

WORDS_DIGITS: Final = 16
"""Digits of a hash that people compare, in groups of four."""

NO_PIECES: Final = bytes(32)
"""The chain of an import that has not begun."""

OTHER_EXPORT: Final = (
    "this export differs from the one whose import has begun: go on with that file, or "
    "cancel the move"
)
"""What an operator reads who loads two exports of one move."""


class MoveState(enum.StrEnum):
    """What became of a move. The values are in the state: never reuse one."""

    ARRIVING = "arriving"
    """In the target: its users are imported, and not served."""
    ACTIVE = "active"
    """In the target: it serves the slots."""
    CANCELED = "canceled"
    """In the target: it never serves the slots for this move."""
    LEAVING = "leaving"
    """In the source: the slots are frozen."""
    GONE = "gone"
    """In the source: the target serves the slots."""
    RETURNED = "returned"
    """In the source: the move was canceled, and it serves the slots again."""
    NEVER = "never"
    """In the source: the move was over before it began here, and changes nothing."""
    LOST = "lost"
    """In the target: after a restore or recovery, nobody here knows how the move ended."""
    RECLAIMING = "reclaiming"
    """
    Administrators take the slots back; what may be spent ends first.

    In the source, or in a target whose restore lost how a whole import ended.
    """
    CLEARED = "cleared"
    """In the target: administrators let it serve the slots, which have no users."""


OPEN: Final = frozenset({MoveState.ARRIVING, MoveState.LEAVING, MoveState.RECLAIMING})
"""The move has not ended here: its slots are not served."""

ELSEWHERE: Final = frozenset({MoveState.CANCELED, MoveState.GONE, MoveState.LOST})
"""Another cluster serves the slots, or may serve them."""

SETTLED: Final = frozenset({MoveState.RETURNED, MoveState.CLEARED})
"""This cluster serves the slots again: to reclaim them changes nothing."""

ARRIVALS: Final = frozenset(
    {
        MoveState.ARRIVING,
        MoveState.ACTIVE,
        MoveState.CANCELED,
        MoveState.LOST,
        MoveState.CLEARED,
    }
)
"""The states of a move to this cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTicket:
    """What the target prepares and the source gets. It holds no secret."""

    move_id: str
    first_slot: int
    last_slot: int
    source: str
    """The id of the cluster that has the users."""
    target: str
    """The id of the cluster that gets them."""
    source_key_id: int
    """The key of the source's ring that signs the export."""
    public_key: bytes
    """X25519: the export is sealed for it."""
    activated_lock: bytes
    """The hash of the proof that the target serves the slots."""
    canceled_lock: bytes
    """The hash of the proof that it never will for this move."""
    same_administrators: bool = False
    """The target takes an administrator of the source for its own one of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """
    A move, in one of its two clusters.

    A part of it that was taken back alone is kept as a move, too, with its own slots.
    """

    ticket: MoveTicket
    state: MoveState
    began_at_ms: int
    ended_at_ms: int | None = None
    key_id: int
    """The key of this cluster's ring that the move needs."""
    source_key: bytes = b""
    """Target: the Ed25519 public key that verifies the export."""
    pieces: int = 0
    """
    Target: how many pieces of the export are imported.

    While slots are taken back: how many are, from the first one on.
    """
    done_name: str = ""
    """Users up to this one are taken back, too, in the slot after those."""
    canceled: bool = False
    """Target: it was canceled here, so its receipt is given also once it is cleared."""
    chain: bytes = NO_PIECES
    """Target: the hash over the contents of these pieces."""
    complete: bool = False
    """Target: the last piece is imported."""
    users: int = 0
    """Target: the users that are imported."""


def part_id(move_id: str, slots: range) -> str:
    """Return the id of the part of a move that is taken back alone."""
    return f"{move_id}/{slots[0]}-{slots[-1]}"


def lock_of(proof: bytes) -> bytes:
    """Return the hash by which a source knows the proof of an end."""
    return hashlib.sha256(b"sparecode/v1/move-lock\0" + proof).digest()


def proof_of(receipt: bytes) -> bytes:
    """
    Return what the log has of a receipt.

    A receipt is a secret of the target, and never in a log; apply checks its proof.
    """
    return hashlib.sha256(b"sparecode/v1/move-proof\0" + receipt).digest()


def ticket_words(ticket: MoveTicket) -> str:
    """
    Return the digits by which people compare a ticket, in both clusters.

    They cover every field, so a ticket that was changed on its way has others.
    """
    fields = [
        ticket.move_id,
        ticket.first_slot,
        ticket.last_slot,
        ticket.source,
        ticket.target,
        ticket.source_key_id,
        ticket.public_key.hex(),
        ticket.activated_lock.hex(),
        ticket.canceled_lock.hex(),
        ticket.same_administrators,
    ]
    return _digits(b"sparecode/v1/move-ticket\0" + json.dumps(fields).encode())


def key_words(public_key: bytes) -> str:
    """Return the digits by which people compare a public key."""
    return _digits(public_key)


def _digits(compared: bytes) -> str:
    digest = hashlib.sha256(compared).hexdigest()
    return " ".join(digest[at : at + 4] for at in range(0, WORDS_DIGITS, 4))

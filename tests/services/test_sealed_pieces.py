# SPDX-License-Identifier: Apache-2.0
"""
Pieces of an export open in the target of their move alone, and as that piece alone.

The source signs each piece, and these pieces have right signatures: so it is the
encryption that refuses them.
"""

import dataclasses
from typing import Any

import pytest

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.moves import MoveTicket
from sparecode_node.services.secrets import move_seals
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.move_seals import (
    BrokenPieceError,
    MoveSeals,
    SealedPiece,
)

KEY = KeyId(1)
CONTENT = b'[["user",{}]]'
CHAIN = bytes(32)


def seals_of(cluster: str, key: bytes = b"") -> MoveSeals:
    keys = {KEY: (key or cluster.encode()).ljust(32)}
    return MoveSeals(KeyRing(cluster_id=cluster, active=KEY, keys=keys))


EAST, WEST, THIRD = seals_of("east"), seals_of("west"), seals_of("third")
TICKET = MoveTicket(
    move_id="m1",
    first_slot=0,
    last_slot=7,
    source="east",
    target="west",
    source_key_id=KEY,
    public_key=WEST.public_key("m1", KEY),
    activated_lock=b"",
    canceled_lock=b"",
)


def sealed(ticket: MoveTicket = TICKET, number: int = 0) -> SealedPiece:
    return EAST.seal_piece(ticket, CONTENT, number=number, chain=CHAIN, last=True)


def opened(
    piece: SealedPiece, ticket: MoveTicket = TICKET, by: MoveSeals = WEST
) -> bytes:
    source_key = EAST.signature_key(KEY)
    return by.open_piece(ticket, piece, key_id=KEY, source_key=source_key)


def signed_again(piece: SealedPiece, ticket: MoveTicket) -> SealedPiece:
    """Return a piece with the source's signature for this ticket and its number."""
    signed = move_seals._signed(
        ticket, piece.number, piece.chain, piece.sealed, last=piece.last
    )
    signature = EAST._signing_key(KEY).sign(signed)
    return dataclasses.replace(piece, move_id=ticket.move_id, signature=signature)


def test_the_target_opens_a_piece() -> None:
    assert opened(sealed()) == CONTENT
    assert opened(signed_again(sealed(), TICKET)) == CONTENT


@pytest.mark.parametrize(
    "other",
    [THIRD, EAST, seals_of("west", key=b"another")],
    ids=["third", "source", "other key"],
)
def test_no_other_ring_opens_a_piece(other: MoveSeals) -> None:
    """Neither that of the source, nor that of a cluster which names itself the target."""
    with pytest.raises(BrokenPieceError):
        opened(sealed(), by=other)


def test_the_ring_of_the_target_opens_the_pieces_of_its_move_alone() -> None:
    """Each move has a key of its own: a ticket of another one does not open it."""
    public_key = WEST.public_key("m2", KEY)
    assert public_key != TICKET.public_key
    ticket = dataclasses.replace(TICKET, public_key=public_key)
    with pytest.raises(BrokenPieceError):
        opened(sealed(ticket), ticket)


@pytest.mark.parametrize(
    "changed",
    [
        {"source": "third"},
        {"target": "third"},
        {"first_slot": 1},
        {"last_slot": 6},
        {"same_administrators": True},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_piece_opens_for_its_ticket_alone(changed: dict[str, Any]) -> None:
    """For example, a source that was shown another ticket makes no export for this one."""
    ticket = dataclasses.replace(TICKET, **changed)
    with pytest.raises(BrokenPieceError):
        opened(signed_again(sealed(ticket), TICKET))


def test_a_piece_opens_as_its_number_alone() -> None:
    piece = dataclasses.replace(sealed(number=1), number=0)
    with pytest.raises(BrokenPieceError):
        opened(signed_again(piece, TICKET))

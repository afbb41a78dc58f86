# SPDX-License-Identifier: Apache-2.0
"""Commands that move users from one cluster to another (docs/clusters.md)."""

from dataclasses import asdict, dataclass, field, fields
from typing import Self

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.moves import MoveTicket, proof_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareMove:
    """In the target: expect the users of some slots from another cluster."""

    move_id: str
    first_slot: int
    last_slot: int
    source: str
    source_key_id: int
    source_key: bytes
    """The Ed25519 public key that verifies the export."""
    public_key: bytes
    activated_lock: bytes
    canceled_lock: bytes
    key_id: KeyId
    """The key of this cluster's ring from which the secrets of the move follow."""
    same_administrators: bool
    """An administrator of the source counts as this cluster's one of the same name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeUsers:
    """In the source: serve the slots of a ticket no more, until the move has ended."""

    move_id: str
    first_slot: int
    last_slot: int
    source: str
    target: str
    source_key_id: int
    public_key: bytes
    activated_lock: bytes
    canceled_lock: bytes
    same_administrators: bool

    @classmethod
    def of(cls, ticket: MoveTicket) -> Self:
        """Return the command for a ticket."""
        return cls(**asdict(ticket))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportMovedUsers:
    """In the source: record that the frozen users are written for the target."""

    move_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportMovedUsers:
    """In the target: import the next piece of an export, sealed for this cluster's ring."""

    move_id: str
    number: int
    """Of the piece, from 0 on."""
    chain: bytes
    """The hash over the contents of all pieces up to this one."""
    last: bool
    key_id: KeyId
    """The key that everything in it is sealed with."""
    rows: bytes = field(repr=False)
    """JSON: see handlers/moved_users.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivateMove:
    """In the target: serve the slots. Decides how the move ends."""

    move_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelMove:
    """In the target: never serve the slots for this move. Decides how the move ends."""

    move_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndMove:
    """In the source: give the slots away, or serve them again, as the target proves."""

    move_id: str
    first_slot: int
    last_slot: int
    source: str
    target: str
    source_key_id: int
    public_key: bytes
    activated_lock: bytes
    canceled_lock: bytes
    same_administrators: bool
    proof: bytes
    """See `domain.moves.proof_of`."""

    @classmethod
    def of(cls, ticket: MoveTicket, receipt: bytes) -> Self:
        """Return the command for a ticket and what the target has given for it."""
        return cls(**asdict(ticket), proof=proof_of(receipt))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimMove:
    """Serve the slots again without a receipt, because no other cluster ever will."""

    move_id: str
    reason: str
    first_slot: int | None = None
    """Take back a part of the slots alone; None: all of them."""
    last_slot: int | None = None

    @property
    def part(self) -> range | None:
        """The slots to take back; None: all slots of the move."""
        if self.first_slot is None or self.last_slot is None:
            return None
        return range(self.first_slot, self.last_slot + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteMovedUsers:
    """Delete some users of slots that are gone, or of a canceled import."""

    move_id: str


def ticket_of(command: FreezeUsers | EndMove) -> MoveTicket:
    """Return the ticket in a command."""
    names = (each.name for each in fields(MoveTicket))
    return MoveTicket(**{name: getattr(command, name) for name in names})

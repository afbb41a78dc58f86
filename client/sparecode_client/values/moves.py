# SPDX-License-Identifier: Apache-2.0
"""Moves of users between clusters, and the files that go from one to the other."""

import enum
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import IO, Any, Self

EXPORT_HEADER = b"sparecode moved users 1\n"
"""The first line of an export. Pieces follow, each after its length in four bytes."""

PIECE_BYTES_MAX = 1024 * 1024
LENGTH_BYTES = 4

WORDS_DIGITS = 16
"""Digits of a hash that people compare, in groups of four."""


class MoveFileError(ValueError):
    """A file is no file of a move, or is damaged."""


class MoveState(enum.StrEnum):
    """What became of a move in the called cluster."""

    ARRIVING = "arriving"
    """To this cluster: the users are imported, and not served."""
    ACTIVE = "active"
    """To this cluster: it serves the slots."""
    CANCELED = "canceled"
    """To this cluster: it never serves the slots for this move."""
    LEAVING = "leaving"
    """From this cluster: the users are frozen."""
    GONE = "gone"
    """From this cluster: the other one serves the slots."""
    RETURNED = "returned"
    """From this cluster: it serves the slots again."""
    NEVER = "never"
    """From this cluster: the move was over before it began here."""
    LOST = "lost"
    """To this cluster, which was restored since: it does not know how the move ended."""
    RECLAIMING = "reclaiming"
    """From this cluster: administrators take the slots back. More users are left."""
    CLEARED = "cleared"
    """To this cluster: it serves the slots, which had no users."""


class _MoveFile:
    """A value that goes from one cluster to the other in a file: JSON."""

    def to_text(self) -> str:
        """Return the text of the file."""
        fields = {
            name: value.hex() if isinstance(value, bytes) else value
            for name, value in asdict(self).items()  # type: ignore[call-overload]
        }
        kind = {"sparecode": type(self).__name__}
        return json.dumps({**kind, **fields}, indent=2) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the value of a text from `to_text`. Raises `MoveFileError`."""
        try:
            read: dict[str, Any] = json.loads(text)
            if read.pop("sparecode") != cls.__name__:
                raise MoveFileError(f"this is no {cls.__name__}")
            kinds = cls.__annotations__
            values = {
                name: bytes.fromhex(read[name]) if kind is bytes else kind(read[name])
                for name, kind in kinds.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, MoveFileError):
                raise
            raise MoveFileError(f"this is no {cls.__name__}") from None
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveKey(_MoveFile):
    """By what a target knows the exports of a cluster. It is not secret."""

    cluster_id: str
    key_id: int
    public_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTicket(_MoveFile):
    """What the target prepares and the source gets. It is not secret."""

    move_id: str
    first_slot: int
    last_slot: int
    source: str
    """The id of the cluster that has the users."""
    target: str
    """The id of the cluster that gets them."""
    source_key_id: int
    public_key: bytes
    activated_lock: bytes
    canceled_lock: bytes
    same_administrators: bool = False
    """The target takes an administrator of the source for its own one of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveReceipt(_MoveFile):
    """Proves to the source how the target has ended a move. Secret until it has ended there."""

    move_id: str
    receipt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A move of users, as the called cluster keeps it."""

    ticket: MoveTicket
    state: MoveState | None
    begin_time: datetime | None
    end_time: datetime | None
    """None: the move is open here."""
    pieces: int
    """To this cluster: the imported pieces of the export."""
    complete: bool
    """To this cluster: the last piece is imported."""
    users: int
    """To this cluster: the imported users."""

    @property
    def id(self) -> str:
        """The id of the move."""
        return self.ticket.move_id


def framed(piece: bytes) -> bytes:
    """Return a piece as it is in an export."""
    return len(piece).to_bytes(LENGTH_BYTES) + piece


def pieces_in(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the pieces of an export. Raises `MoveFileError`."""
    if file.readline(len(EXPORT_HEADER) + 1) != EXPORT_HEADER:
        raise MoveFileError("this is no export of users")
    while length := file.read(LENGTH_BYTES):
        size = int.from_bytes(length)
        if len(length) != LENGTH_BYTES or size > PIECE_BYTES_MAX:
            raise MoveFileError("the export is damaged")
        piece = file.read(size)
        if len(piece) != size:
            raise MoveFileError("the export ends too early: write it again")
        yield piece


def ticket_words(ticket: MoveTicket) -> str:
    """
    Return the digits by which people compare a ticket, in both clusters.

    They cover every field, so a ticket that was changed on its way has others. Requests
    for approval in both clusters name them, too.
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

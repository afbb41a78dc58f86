# SPDX-License-Identifier: Apache-2.0
"""The form of what callers send about moves of users."""

from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)

from sparecode_node.domain.moves import MoveTicket
from sparecode_node.domain.slots import SLOTS
from sparecode_node.services import fields
from sparecode_node.services.errors import InvalidFieldError

MOVE_ID_MAX: Final = 64
LOCK_BYTES: Final = 32
_ANY_KEY: Final = X25519PrivateKey.from_private_bytes(b"1" * LOCK_BYTES)
"""No secret: an exchange fails with any private key, if the public one is unfit."""


def move_id(value: str) -> str:
    """Return the id of a move. Raises `InvalidFieldError`."""
    return fields.text("move_id", value, at_least=1, at_most=MOVE_ID_MAX)


def part(first_slot: int | None, last_slot: int | None) -> range | None:
    """Return a part of a move's slots; None: all. Raises `InvalidFieldError`."""
    if first_slot is None and last_slot is None:
        return None
    if first_slot is None or last_slot is None:
        raise InvalidFieldError(
            "last_slot", "must be set with first_slot, or not at all"
        )
    check_slots(first_slot, last_slot)
    return range(first_slot, last_slot + 1)


def check_slots(first_slot: int, last_slot: int) -> None:
    """Raise `InvalidFieldError` unless these are the ends of a range of slots."""
    if not 0 <= first_slot <= last_slot < SLOTS:
        raise InvalidFieldError("last_slot", f"must be 0 to {SLOTS - 1}, in order")


def check_ticket(ticket: MoveTicket) -> None:
    """Raise `InvalidFieldError` for what is no ticket."""
    move_id(ticket.move_id)
    for name, value in (
        ("source", ticket.source),
        ("target", ticket.target),
    ):
        fields.text(name, value, at_least=1, at_most=MOVE_ID_MAX)
    for name, key in (
        ("public_key", ticket.public_key),
        ("activated_lock", ticket.activated_lock),
        ("canceled_lock", ticket.canceled_lock),
    ):
        if len(key) != LOCK_BYTES:
            raise InvalidFieldError(name, f"must have {LOCK_BYTES} bytes")
    try:
        _ANY_KEY.exchange(X25519PublicKey.from_public_bytes(ticket.public_key))
    except ValueError:
        raise InvalidFieldError("public_key", "must be a key of X25519") from None
    check_slots(ticket.first_slot, ticket.last_slot)
    if not 0 < ticket.source_key_id < 2**31:
        raise InvalidFieldError("source_key_id", "must be the id of a key")


def check_row(kind: str, row: Mapping[str, Any]) -> None:
    """
    Check what people have typed in the source, as it is checked where they type it.

    Apply bounds all the rest. Raises `InvalidFieldError` and `TypeError`.
    """
    match kind:
        case "user":
            fields.username(row["username"])
            fields.text(
                "display_name", row["display_name"], at_most=fields.DISPLAY_NAME_MAX
            )
            fields.email(row["email"])
            fields.language(row["language"])
            fields.email(row["manager_email"], "manager_email")
        case "address":
            fields.email(row["email"])
        case "group":
            fields.groups("group_key", [row["group_key"]])
        case "token":
            fields.serial(row["serial"])

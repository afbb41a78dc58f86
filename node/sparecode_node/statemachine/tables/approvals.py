# SPDX-License-Identifier: Apache-2.0
"""Rows of approvals and of recent PIN changes (P3, I10)."""

import json
import sqlite3
from collections.abc import Iterable

from sparecode_node.domain.approvals import PIN_KNOWN_MS, Approval, ApprovalKind
from sparecode_node.domain.ids import AdministratorName, TokenSerial

_COLUMNS = (
    "approval_id, kind, author, action, target, description, change, serials, asked_at_ms, "
    "ends_at_ms, approver, basis, owners, used, recipient"
)


def approval_of(row: tuple[object, ...]) -> Approval:
    """Return the approval of a row with `_COLUMNS`."""
    (
        number,
        kind,
        author,
        action,
        target,
        description,
        change,
        serials,
        start,
        end,
        by,
        basis,
        owners,
        used,
        recipient,
    ) = row
    return Approval(
        approval_id=int(str(number)),
        kind=ApprovalKind(str(kind)),
        author=AdministratorName(str(author)),
        action=str(action),
        target=str(target),
        description=str(description),
        change=str(change),
        serials=tuple(TokenSerial(each) for each in json.loads(str(serials))),
        asked_at_ms=int(str(start)),
        ends_at_ms=int(str(end)),
        approver=None if by is None else AdministratorName(str(by)),
        basis=str(basis),
        owners=tuple(json.loads(str(owners))),
        used=tuple(TokenSerial(each) for each in json.loads(str(used))),
        recipient=str(recipient),
    )


def find(db: sqlite3.Connection, approval_id: int) -> Approval | None:
    """Return a waiting request or a permit by its id."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM approvals WHERE approval_id = ?", (approval_id,)
    ).fetchone()
    return approval_of(row) if row else None


def of_author(db: sqlite3.Connection, author: AdministratorName) -> list[Approval]:
    """Return the requests and permits of an administrator, oldest first."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM approvals WHERE author = ? ORDER BY approval_id",
        (author,),
    )
    return [approval_of(row) for row in rows]


def add(db: sqlite3.Connection, approval: Approval) -> int:
    """Add a request with the next id, and return the id."""
    added = db.execute(
        "INSERT INTO approvals (kind, author, action, target, description, change, serials, "
        "asked_at_ms, ends_at_ms, basis, owners, recipient) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            approval.kind,
            approval.author,
            approval.action,
            approval.target,
            approval.description,
            approval.change,
            _text(approval.serials),
            approval.asked_at_ms,
            approval.ends_at_ms,
            approval.basis,
            _text(approval.owners),
            approval.recipient,
        ),
    )
    return added.lastrowid or 0


def save_permit(db: sqlite3.Connection, permit: Approval) -> None:
    """Save the approver, the end and the uses of a permit."""
    db.execute(
        "UPDATE approvals SET approver = ?, ends_at_ms = ?, used = ? "
        "WHERE approval_id = ?",
        (permit.approver, permit.ends_at_ms, _text(permit.used), permit.approval_id),
    )


def use_up(
    db: sqlite3.Connection, author: AdministratorName, serial: TokenSerial
) -> None:
    """Let the requests and permits of an administrator cover a token no longer."""
    for each in of_author(db, author):
        if serial in each.serials and serial not in each.used:
            save_permit(db, each.with_use(serial))


def _text(values: tuple[str, ...]) -> str:
    return json.dumps(values, separators=(",", ":"))


def delete(db: sqlite3.Connection, approval_id: int) -> None:
    """Delete a decided request or a used permit."""
    db.execute("DELETE FROM approvals WHERE approval_id = ?", (approval_id,))


def ended(db: sqlite3.Connection, now_ms: int) -> list[Approval]:
    """Return the requests and permits that have ended, oldest first."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM approvals WHERE ends_at_ms <= ? ORDER BY approval_id",
        (now_ms,),
    )
    return [approval_of(row) for row in rows]


def note_pin(
    db: sqlite3.Connection,
    serial: TokenSerial,
    administrator: AdministratorName,
    now_ms: int,
) -> None:
    """Record that an administrator has set or cleared the PIN of a token (I10)."""
    db.execute(
        "INSERT INTO pin_changes (serial, administrator, ends_at_ms) VALUES (?, ?, ?) "
        "ON CONFLICT (serial, administrator) "
        "DO UPDATE SET ends_at_ms = excluded.ends_at_ms",
        (serial, administrator, now_ms + PIN_KNOWN_MS),
    )


def carry_pin(db: sqlite3.Connection, old: TokenSerial, new: TokenSerial) -> None:
    """Copy the PIN changes of a token to the token that has taken over its PIN."""
    db.execute(
        "INSERT OR REPLACE INTO pin_changes (serial, administrator, ends_at_ms) "
        "SELECT ?, administrator, ends_at_ms FROM pin_changes WHERE serial = ?",
        (new, old),
    )


def knows_pin(
    db: sqlite3.Connection,
    serials: Iterable[TokenSerial],
    administrator: AdministratorName,
) -> list[TokenSerial]:
    """Return those of the tokens whose PIN the administrator has changed recently."""
    return [
        serial
        for serial in serials
        if db.execute(
            "SELECT 1 FROM pin_changes WHERE serial = ? AND administrator = ?",
            (serial, administrator),
        ).fetchone()
    ]

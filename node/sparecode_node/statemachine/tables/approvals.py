# SPDX-License-Identifier: Apache-2.0
"""What waits for a second approver, and who knows which PIN: their rows (P3, I10)."""

import json
import sqlite3
from collections.abc import Iterable

from sparecode_node.domain.approvals import PIN_KNOWN_MS, Approval, ApprovalKind
from sparecode_node.domain.ids import AdministratorName, TokenSerial

_COLUMNS = (
    "approval_id, kind, author, action, target, said, change, serials, asked_at_ms, "
    "ends_at_ms, approver"
)


def approval_of(row: tuple[object, ...]) -> Approval:
    """Return the approval of a row of all columns, in their order."""
    number, kind, author, action, target, said, change, serials, start, end, by = row
    return Approval(
        approval_id=int(str(number)),
        kind=ApprovalKind(str(kind)),
        author=AdministratorName(str(author)),
        action=str(action),
        target=str(target),
        said=str(said),
        change=str(change),
        serials=tuple(TokenSerial(each) for each in json.loads(str(serials))),
        asked_at_ms=int(str(start)),
        ends_at_ms=int(str(end)),
        approver=None if by is None else AdministratorName(str(by)),
    )


def find(db: sqlite3.Connection, approval_id: int) -> Approval | None:
    """Return the approval of that number, if it waits or is a permit."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM approvals WHERE approval_id = ?", (approval_id,)
    ).fetchone()
    return approval_of(row) if row else None


def of_author(db: sqlite3.Connection, author: AdministratorName) -> list[Approval]:
    """Return what an administrator has asked for, oldest first."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM approvals WHERE author = ? ORDER BY approval_id",
        (author,),
    )
    return [approval_of(row) for row in rows]


def add(db: sqlite3.Connection, approval: Approval) -> int:
    """Add what was asked for, under the next number; return that."""
    added = db.execute(
        "INSERT INTO approvals (kind, author, action, target, said, change, serials, "
        "asked_at_ms, ends_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            approval.kind,
            approval.author,
            approval.action,
            approval.target,
            approval.said,
            approval.change,
            json.dumps(approval.serials, separators=(",", ":")),
            approval.asked_at_ms,
            approval.ends_at_ms,
        ),
    )
    return added.lastrowid or 0


def save_permit(db: sqlite3.Connection, permit: Approval) -> None:
    """Save who has approved, and until when it holds."""
    db.execute(
        "UPDATE approvals SET approver = ?, ends_at_ms = ? WHERE approval_id = ?",
        (permit.approver, permit.ends_at_ms, permit.approval_id),
    )


def delete(db: sqlite3.Connection, approval_id: int) -> None:
    """Forget what was decided or used."""
    db.execute("DELETE FROM approvals WHERE approval_id = ?", (approval_id,))


def ended(db: sqlite3.Connection, now_ms: int) -> list[Approval]:
    """Return what has ended, oldest first."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM approvals WHERE ends_at_ms <= ? ORDER BY approval_id",
        (now_ms,),
    )
    return [approval_of(row) for row in rows]


def note_pin(
    db: sqlite3.Connection, serial: TokenSerial, who: AdministratorName, now_ms: int
) -> None:
    """Remember that somebody knows the PIN of a token, or that it has none (I10)."""
    db.execute(
        "INSERT INTO pin_changes (serial, administrator, ends_at_ms) VALUES (?, ?, ?) "
        "ON CONFLICT (serial, administrator) "
        "DO UPDATE SET ends_at_ms = excluded.ends_at_ms",
        (serial, who, now_ms + PIN_KNOWN_MS),
    )


def carry_pin(db: sqlite3.Connection, old: TokenSerial, new: TokenSerial) -> None:
    """Remember of a token that has another's PIN now who knows it."""
    db.execute(
        "INSERT OR REPLACE INTO pin_changes (serial, administrator, ends_at_ms) "
        "SELECT ?, administrator, ends_at_ms FROM pin_changes WHERE serial = ?",
        (new, old),
    )


def knows_pin(
    db: sqlite3.Connection, serials: Iterable[TokenSerial], who: AdministratorName
) -> list[TokenSerial]:
    """Return of which of these tokens somebody has changed the PIN of late."""
    return [
        serial
        for serial in serials
        if db.execute(
            "SELECT 1 FROM pin_changes WHERE serial = ? AND administrator = ?",
            (serial, who),
        ).fetchone()
    ]

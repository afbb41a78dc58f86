# SPDX-License-Identifier: Apache-2.0
"""Rows of moves of users between clusters, and what they mean for each slot."""

import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from sparecode_node.domain.ids import UserId
from sparecode_node.domain.moves import (
    ELSEWHERE,
    OPEN,
    Move,
    MoveState,
    MoveTicket,
    part_id,
)
from sparecode_node.statemachine.tables.rows import Row, upsert

MOVE_TABLES = """
CREATE TABLE moves (                    -- of users to or from another cluster
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- order
    move_id TEXT NOT NULL UNIQUE,    -- never used again
    state TEXT NOT NULL,             -- see domain/moves.py
    first_slot INTEGER NOT NULL,
    last_slot INTEGER NOT NULL,
    source TEXT NOT NULL,            -- id of a cluster
    target TEXT NOT NULL,
    source_key_id INTEGER NOT NULL,  -- signs the export
    public_key BLOB NOT NULL,        -- the export is sealed for it
    activated_lock BLOB NOT NULL,    -- hash of the proof of each end
    canceled_lock BLOB NOT NULL,
    key_id INTEGER NOT NULL,         -- of this cluster's ring
    source_key BLOB NOT NULL,        -- target: verifies the export
    pieces INTEGER NOT NULL,         -- target: imported so far
    chain BLOB NOT NULL,             -- target: hash over their contents
    complete INTEGER NOT NULL,       -- target: the last piece is imported
    users INTEGER NOT NULL,          -- target: imported so far
    began_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,             -- NULL: the move is open
    done_name TEXT NOT NULL,         -- users up to it are taken back, in the slot
                                     -- after the `pieces` that are done
    canceled INTEGER NOT NULL,       -- target: it was canceled, and may be cleared since
    same_administrators INTEGER NOT NULL    -- an equal name is the same person's
) STRICT;

CREATE TABLE move_administrators (      -- target: who counts by name while users arrive
    move_id TEXT NOT NULL REFERENCES moves (move_id) ON DELETE CASCADE,
    administrator TEXT NOT NULL REFERENCES administrators (name) ON DELETE CASCADE,
    PRIMARY KEY (move_id, administrator)
) STRICT, WITHOUT ROWID;
CREATE INDEX move_administrators_by_name ON move_administrators (administrator);

CREATE TABLE moved_slots (              -- slots that have ever been in a move
    slot INTEGER PRIMARY KEY,
    number INTEGER NOT NULL REFERENCES moves (number)   -- the newest one, which decides
) STRICT;
"""

SLOT_INDEX = """
CREATE INDEX users_by_slot ON users (slot, name_key);
"""

COLUMNS = (
    "move_id, state, first_slot, last_slot, source, target, source_key_id, public_key, "
    "activated_lock, canceled_lock, key_id, source_key, pieces, chain, complete, users, "
    "began_at_ms, ended_at_ms, done_name, canceled, same_administrators"
)

_NEWEST = f"SELECT {COLUMNS} FROM moved_slots JOIN moves USING (number) WHERE slot = ?"

_DECIDES = """
WITH RECURSIVE slots (slot) AS (
    SELECT :first UNION ALL SELECT slot + 1 FROM slots WHERE slot < :last
)
INSERT INTO moved_slots (slot, number)
SELECT slot, number FROM slots, moves WHERE move_id = :move_id
ON CONFLICT (slot) DO UPDATE SET number = excluded.number
"""

ANY_ARRIVING = "SELECT 1 FROM moves WHERE state = 'arriving' LIMIT 1"

NOBODY = (-1, "")
"""Before the first user of the first slot."""

OF_MOVE = """
FROM moved_slots CROSS JOIN users USING (slot)
WHERE slot BETWEEN :first AND :last
    AND number = (SELECT number FROM moves WHERE move_id = :move_id)
"""
"""The users of a move's slots, but for slots that a later move has brought back."""


def move_of(row: Row) -> Move:
    """Return the move of a row with `COLUMNS`."""
    return Move(
        ticket=MoveTicket(
            move_id=row[0],
            first_slot=row[2],
            last_slot=row[3],
            source=row[4],
            target=row[5],
            source_key_id=row[6],
            public_key=row[7],
            activated_lock=row[8],
            canceled_lock=row[9],
            same_administrators=bool(row[20]),
        ),
        state=MoveState(row[1]),
        key_id=row[10],
        source_key=row[11],
        pieces=row[12],
        chain=row[13],
        complete=bool(row[14]),
        users=row[15],
        began_at_ms=row[16],
        ended_at_ms=row[17],
        done_name=row[18],
        canceled=bool(row[19]),
    )


def begin(
    db: sqlite3.Connection, move: Move, decided: Iterable[range] | None = None
) -> None:
    """
    Save a new move: from now on it decides whether its slots are served.

    *decided*: it decides these alone; None: all slots of its ticket.
    """
    save(db, move)
    ticket = move.ticket
    if decided is None:
        decided = [range(ticket.first_slot, ticket.last_slot + 1)]
    for slots in decided:
        ends = {"first": slots[0], "last": slots[-1]}
        db.execute(_DECIDES, {**ends, "move_id": ticket.move_id})


def save(db: sqlite3.Connection, move: Move) -> None:
    """Save a move that has begun, or one that never began here."""
    ticket = move.ticket
    upsert(
        db,
        "moves",
        ("move_id",),
        move_id=ticket.move_id,
        state=move.state,
        first_slot=ticket.first_slot,
        last_slot=ticket.last_slot,
        source=ticket.source,
        target=ticket.target,
        source_key_id=ticket.source_key_id,
        public_key=ticket.public_key,
        activated_lock=ticket.activated_lock,
        canceled_lock=ticket.canceled_lock,
        key_id=move.key_id,
        source_key=move.source_key,
        pieces=move.pieces,
        chain=move.chain,
        complete=move.complete,
        users=move.users,
        began_at_ms=move.began_at_ms,
        ended_at_ms=move.ended_at_ms,
        done_name=move.done_name,
        canceled=move.canceled,
        same_administrators=ticket.same_administrators,
    )


def find(db: sqlite3.Connection, move_id: str) -> Move | None:
    """Return the move with this id."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM moves WHERE move_id = ?", (move_id,)
    ).fetchone()
    return move_of(row) if row else None


def find_part(db: sqlite3.Connection, move_id: str, slots: range | None) -> Move | None:
    """
    Return the part of a move that is taken back alone, or a move as a whole.

    A part that has not begun has the id and state of its move.
    """
    move = find(db, move_id)
    if move is None or not slots:
        return move
    ticket = replace(move.ticket, first_slot=slots[0], last_slot=slots[-1])
    return find(db, part_id(move_id, slots)) or replace(move, ticket=ticket)


def record_administrators(db: sqlite3.Connection, move_id: str) -> int:
    """
    Record the administrators of now, who count by name for a move; return their number.

    Later ones do not: a name that is given after the declaration is perhaps another
    person's. So an administrator who is removed counts no longer, nor does a new one of
    that name.
    """
    return db.execute(
        "INSERT INTO move_administrators (move_id, administrator) "
        "SELECT ?, name FROM administrators",
        (move_id,),
    ).rowcount


def administrators_of(db: sqlite3.Connection, move_id: str) -> frozenset[str]:
    """Return the administrators who count by name for a move that is open."""
    rows = db.execute(
        "SELECT administrator FROM move_administrators WHERE move_id = ?", (move_id,)
    )
    return frozenset(str(name) for (name,) in rows)


def forget_administrators(db: sqlite3.Connection, move_id: str) -> None:
    """Forget who counts by name for a move: it has ended, and no users arrive."""
    db.execute("DELETE FROM move_administrators WHERE move_id = ?", (move_id,))


def count_never(db: sqlite3.Connection) -> int:
    """Return how many moves are recorded that never began here."""
    row = db.execute(
        "SELECT count(*) FROM moves WHERE state = ?", (MoveState.NEVER,)
    ).fetchone()
    return int(row[0])


def arriving(db: sqlite3.Connection) -> list[Move]:
    """Return the moves whose users may be arriving now, the oldest first."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM moves WHERE state = ? ORDER BY number",
        (MoveState.ARRIVING,),
    )
    return [move_of(row) for row in rows]


def any_arriving(db: sqlite3.Connection) -> bool:
    """Return whether users of another cluster may be arriving now."""
    row = db.execute(ANY_ARRIVING).fetchone()
    return row is not None


def any_move(db: sqlite3.Connection) -> bool:
    """Return whether this cluster has ever moved users."""
    return db.execute("SELECT 1 FROM moves LIMIT 1").fetchone() is not None


def newest_of(db: sqlite3.Connection, slot: int) -> Move | None:
    """Return the move that decides whether a slot is served; None: it never moved."""
    row = db.execute(_NEWEST, (slot,)).fetchone()
    return move_of(row) if row else None


def newest_of_each(db: sqlite3.Connection, first: int, last: int) -> list[Move]:
    """Return the moves that decide whether these slots are served, the newest first."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM moves WHERE number IN ("
        "SELECT number FROM moved_slots WHERE slot BETWEEN ? AND ?"
        ") ORDER BY number DESC",
        (first, last),
    )
    return [move_of(row) for row in rows]


def served(db: sqlite3.Connection, first: int, last: int) -> list[range]:
    """Return which of these slots are served, as ranges in their order."""
    rows = db.execute(
        "SELECT slot, state FROM moved_slots JOIN moves USING (number) "
        "WHERE slot BETWEEN ? AND ?",
        (first, last),
    )
    unserved = {slot for slot, state in rows if state in OPEN | ELSEWHERE}
    return _ranges(slot for slot in range(first, last + 1) if slot not in unserved)


def taken_on(db: sqlite3.Connection, move: Move, since_ms: int) -> Move | None:
    """
    Return a later move from here that has some of the slots that a move decides.

    It has begun after *since_ms*, in a cluster that did not serve these slots then.
    """
    slots = slots_of(db, move)
    rows = db.execute(
        f"SELECT {COLUMNS} FROM moves WHERE state IN (?, ?) AND began_at_ms >= ? "
        "AND number > (SELECT number FROM moves WHERE move_id = ?) ORDER BY number",
        (MoveState.LEAVING, MoveState.GONE, since_ms, move.ticket.move_id),
    )
    for later in map(move_of, rows):
        first, last = later.ticket.first_slot, later.ticket.last_slot
        if any(first <= each[-1] and each[0] <= last for each in slots):
            return later
    return None


def has_users(db: sqlite3.Connection, first: int, last: int) -> bool:
    """Return whether any user has one of these slots."""
    row = db.execute(
        "SELECT 1 FROM users WHERE slot BETWEEN ? AND ? LIMIT 1", (first, last)
    ).fetchone()
    return row is not None


def slots_of(db: sqlite3.Connection, move: Move) -> list[range]:
    """Return the slots of a move that no later move has, as ranges in their order."""
    rows = db.execute(
        "SELECT slot FROM moved_slots WHERE slot BETWEEN ? AND ? "
        "AND number = (SELECT number FROM moves WHERE move_id = ?) ORDER BY slot",
        (move.ticket.first_slot, move.ticket.last_slot, move.ticket.move_id),
    )
    return _ranges(slot for (slot,) in rows)


def decides_all(db: sqlite3.Connection, move: Move) -> bool:
    """Return whether a move decides about all slots of its ticket."""
    first, last = move.ticket.first_slot, move.ticket.last_slot
    return slots_of(db, move) == [range(first, last + 1)]


def _ranges(slots: Iterable[int]) -> list[range]:
    found: list[range] = []
    for slot in slots:
        if found and found[-1].stop == slot:
            found[-1] = range(found[-1].start, slot + 1)
        else:
            found.append(range(slot, slot + 1))
    return found


def users_of(
    db: sqlite3.Connection, move: Move, most: int, after: tuple[int, str] = NOBODY
) -> list[tuple[UserId, int, str]]:
    """
    Return some users of a move whose slots no later move has brought back.

    Each with their slot and name, in this order; *after*: those behind this one. The
    cost does not grow with the users whom a later move has brought back.
    """
    found: list[tuple[UserId, int, str]] = []
    for slots in slots_of(db, move):
        if slots.stop <= after[0]:
            continue
        rows = db.execute(
            "SELECT user_id, slot, name_key FROM users "
            "WHERE (slot, name_key) > (?, ?) AND slot < ? "
            "ORDER BY slot, name_key LIMIT ?",
            (*max(after, (slots.start, "")), slots.stop, most - len(found)),
        )
        found += [(UserId(each), slot, name) for each, slot, name in rows]
        if len(found) >= most:
            break
    return found


def needs_key(db: sqlite3.Connection, key_id: int, ended_after_ms: int) -> bool:
    """Return whether a move needs a key of the ring: it is open, or ended recently."""
    row = db.execute(
        "SELECT 1 FROM moves WHERE key_id = ? AND state != ? "
        "AND (ended_at_ms IS NULL OR ended_at_ms > ?) LIMIT 1",
        (key_id, MoveState.NEVER, ended_after_ms),
    ).fetchone()
    return row is not None

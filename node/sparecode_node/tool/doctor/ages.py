# SPDX-License-Identifier: Apache-2.0
"""Checks of what ages unnoticed: the active key and the last backup."""

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sparecode_node.statemachine.tables import segments
from sparecode_node.statemachine.tables.keys import ROTATION_DUE
from sparecode_node.statemachine.tables.schema import read_only_uri
from sparecode_node.tool.doctor.findings import Finding, ok, warn

KEY_WARN_DAYS = 365
"""A key that has been active for a year is in a year's backups and bundles."""
BACKUP_WARN_HOURS = 26
"""Backups are nightly (deploy/systemd). The alert has the same limit."""
_HOUR = dt.timedelta(hours=1)


def check_ages(path: Path, now: dt.datetime, cluster_id: str = "") -> Iterator[Finding]:
    """
    Check the ages of the key and the backup; yield nothing if there is no state.

    *cluster_id* is that of the key ring. The state has another one until the first
    start after a restore or a recovery.
    """
    if not path.exists():
        return
    with (
        contextlib.suppress(sqlite3.DatabaseError),  # `check_state` reports it.
        contextlib.closing(sqlite3.connect(read_only_uri(path), uri=True)) as db,
    ):
        yield from _check_key(db, now)
        yield from _check_rotation(db)
        yield from _check_backup(db, now, cluster_id)
        yield from _check_authorities(db)


def _check_key(db: sqlite3.Connection, now: dt.datetime) -> Iterator[Finding]:
    row = db.execute(
        "SELECT key_id, activated_at_ms FROM ring_keys WHERE retire_at_ms IS NULL "
        "ORDER BY key_id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return
    key_id, since_ms = row
    if not since_ms:  # The first key is as old as the first event.
        oldest = next(iter(segments.all_sealed(db)), None)
        (since_ms,) = db.execute("SELECT min(at_ms) FROM audit_events").fetchone()
        since_ms = oldest.first_at_ms if oldest else since_ms
    if since_ms is None:
        return
    since = dt.datetime.fromtimestamp(since_ms / 1000, dt.UTC)
    days = (now - since).days
    words = f"key {key_id} has been active since {since:%Y-%m-%d} ({days} days)"
    if days >= KEY_WARN_DAYS:
        yield warn(
            "key age", f"{words}: replace it with: sparecode cluster rotate-keys"
        )
    else:
        yield ok("key age", words)


def _check_rotation(db: sqlite3.Connection) -> Iterator[Finding]:
    row = db.execute(
        "SELECT value FROM meta WHERE name = ?", (ROTATION_DUE,)
    ).fetchone()
    if row is not None:
        yield warn(
            "key rotation",
            f"{row[0]} was removed and has had the ring's key; the primary replaces it "
            "once every member can be reached. To replace it now: sparecode cluster "
            "rotate-keys --at-once",
        )


def _check_authorities(db: sqlite3.Connection) -> Iterator[Finding]:
    """Below feature level 2 a stopped node's state has no such table."""
    rows = db.execute(
        "SELECT node_id, group_concat(DISTINCT authority), min(since_ms), min(started), "
        "min(EXISTS (SELECT 1 FROM authority_successors AS made WHERE "
        "made.authority = due.authority AND made.replaces = due.fingerprint)) "
        "FROM due_authorities AS due GROUP BY node_id ORDER BY node_id"
    )
    for node_id, kinds, since_ms, started, announced in rows.fetchall():
        since = dt.datetime.fromtimestamp(since_ms / 1000, dt.UTC)
        yield warn(
            "authorities",
            f"{node_id} was removed on {since:%Y-%m-%d} and has had the keys of the "
            f"authorities for {' and '.join(sorted(kinds.split(','), reverse=True))}: "
            "replace these (docs/runbooks/new-authority.md). "
            f"{_next_step(node_id, started=started, announced=announced)} "
            "To record why they stay: "
            f"sparecode cluster keep-authorities {node_id} --reason REASON",
        )


def _next_step(node_id: str, *, started: bool, announced: bool) -> str:
    """Return which step of the replacement is next, as far as the state tells."""
    if not started:
        return f"Next: sparecode cluster replace-authorities {node_id}."
    if not announced:
        return (
            "A member that has their keys announces successors within a minute. If no "
            "member has them, make new authorities yourself."
        )
    return (
        "Successors are announced. Next: give them to agents and administrators, run "
        "sparecode-node renew-certificate --new-authority on each node, then: sparecode "
        f"cluster replace-authorities {node_id} --finish. `sparecode cluster status` "
        "names the nodes that are left."
    )


def _check_backup(
    db: sqlite3.Connection, now: dt.datetime, cluster_id: str
) -> Iterator[Finding]:
    meta = dict(
        db.execute(
            "SELECT name, value FROM meta WHERE name IN ('backup_at_ms', 'cluster_id')"
        )
    )
    if not meta.get("cluster_id"):
        return
    if cluster_id not in ("", meta["cluster_id"]):
        yield ok("backup", "none yet of the new cluster: take one once it is open")
        return
    if not meta.get("backup_at_ms"):
        yield warn(
            "backup",
            "no backup was ever taken: enable nightly backups "
            "(deploy/systemd/sparecode-backup.timer), or take one now: sparecode "
            "cluster backup FILE",
        )
        return
    taken = dt.datetime.fromtimestamp(meta["backup_at_ms"] / 1000, dt.UTC)
    hours = int((now - taken) / _HOUR)
    words = f"the last one was taken {taken:%Y-%m-%d %H:%M} UTC ({hours} hours ago)"
    if hours >= BACKUP_WARN_HOURS:
        yield warn("backup", f"{words}: check the timer sparecode-backup")
    else:
        yield ok("backup", words)

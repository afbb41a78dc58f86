# SPDX-License-Identifier: Apache-2.0
"""What the node holds: journal, state, audit log."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent, chain_hash
from sparecode_node.replication.offline.inspection import (
    DamagedJournalError,
    JournalFacts,
    read_journal,
)
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.statemachine.tables.schema import VERSION, read_only_uri
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn

_REPLACE = "remove this node from the cluster, and add it under a new id"


def check_journal(
    directory: Path, *, node_id: str, ring: KeyRing | None, running: bool
) -> tuple[JournalFacts | None, Finding]:
    """Read the journal, every byte of it."""
    try:
        facts = read_journal(directory)
    except FileNotFoundError:
        return None, warn("journal", f"{directory}: there is none yet")
    except OSError as error:
        return None, fail("journal", f"{error.filename}: {error.strerror}")
    except DamagedJournalError as error:
        return None, fail("journal", f"{error}; {_REPLACE}")
    if facts.node_id != node_id or (ring and facts.cluster_id != ring.cluster_id):
        whose = f"node {facts.node_id} of cluster {facts.cluster_id}"
        return None, fail("journal", f"{directory} is that of {whose}")
    words = f"entries {facts.first_index} to {facts.last_index} are whole"
    if facts.unfinished_bytes and not running:
        words += f"; {facts.unfinished_bytes} bytes of a torn write will be cut off"
    return facts, ok("journal", words)


def check_state(
    path: Path, *, journal: JournalFacts | None, ring: KeyRing | None
) -> Iterator[Finding]:
    """Check the database, and compute the audit chain anew."""
    if not path.exists():
        yield warn("state", f"{path}: there is none yet")
        return
    try:
        uri = read_only_uri(path)
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, isolation_level=None)
        ) as db:
            db.execute("BEGIN")  # All of it as of one moment.
            yield from _check_database(db, journal, ring)
            yield _check_chain(db)
    except sqlite3.DatabaseError as error:
        yield fail("state", f"{path}: {error}; {_REPLACE}")


def _check_database(
    db: sqlite3.Connection, journal: JournalFacts | None, ring: KeyRing | None
) -> Iterator[Finding]:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        yield fail("state", f"format {version} is of newer software than this")
    (checked,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if checked != "ok":
        yield fail("state", f"the database is damaged ({checked}); {_REPLACE}")
        return
    meta = dict(db.execute("SELECT name, value FROM meta"))
    applied = int(meta.get("applied_index", 0))
    if journal is not None and applied > journal.last_index:
        yield fail(
            "state",
            f"has applied entry {applied}, but the journal ends at entry "
            f"{journal.last_index}; {_REPLACE}",
        )
    else:
        yield ok("state", f"the database is whole, up to entry {applied}")
    cluster_id = meta.get("cluster_id")
    if ring is not None and cluster_id not in (None, ring.cluster_id):
        yield fail("key ring", f"is not that of the state, of cluster {cluster_id}")
    elif ring is not None and meta.get("key_id", ring.active) not in ring.key_ids:
        yield fail(
            "key ring",
            f"lacks key {meta['key_id']}, which the cluster uses: copy the ring of "
            "another node",
        )


def _check_chain(db: sqlite3.Connection) -> Finding:
    """Compute every hash of the audit log from the one before (U1)."""
    previous, sequence = GENESIS_HASH, 0
    rows = db.execute(
        "SELECT sequence, at_ms, actor, node, action, target, outcome, reason, detail, "
        "hash FROM audit_events ORDER BY sequence"
    )
    for *fields, stored_hash in rows:
        names = (
            "sequence",
            "at_ms",
            "actor",
            "node",
            "action",
            "target",
            "outcome",
            "reason",
            "detail",
        )
        event = AuditEvent(**dict(zip(names, fields, strict=True)))
        sequence += 1
        if event.sequence != sequence or chain_hash(previous, event) != stored_hash:
            return fail(
                "audit log",
                f"the chain breaks at event {sequence}: somebody or something changed "
                f"the file; compare with the other nodes, then {_REPLACE}",
            )
        previous = stored_hash
    head = previous.hex()[:16] if sequence else "none"
    return ok("audit log", f"{sequence} events, an unbroken chain, head {head}")

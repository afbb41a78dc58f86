# SPDX-License-Identifier: Apache-2.0
"""Checks of the node's data: journal, state and audit log."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent, chain_hash
from sparecode_node.domain.segments import common, ranges_of
from sparecode_node.replication.offline.inspection import (
    DamagedJournalError,
    JournalFacts,
    read_journal,
)
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.statemachine.missing_segments import kept_in_state
from sparecode_node.statemachine.sealed_events import file_of, open_log
from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.schema import VERSION, read_only_uri
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn

KEPT_MAX = 2
"""Sealed segments in the state that are no finding: one is sealed, and one is leaving."""

_REPLACE = "remove this node from the cluster, and add it under a new id"


def check_journal(
    directory: Path,
    *,
    node_id: str,
    ring: KeyRing | None,
    running: bool,
    prepared: bool = False,
) -> tuple[JournalFacts | None, Finding]:
    """
    Read the whole journal and verify it.

    *prepared* is whether the node is set up to make it at its next start.
    """
    try:
        facts = read_journal(directory)
    except FileNotFoundError:
        return None, _not_there("journal", directory, prepared=prepared)
    except OSError as error:
        return None, fail("journal", f"{error.filename}: {error.strerror}")
    except DamagedJournalError as error:
        return None, fail("journal", f"{error}; {_REPLACE}")
    if facts.node_id != node_id or (ring and facts.cluster_id != ring.cluster_id):
        whose = f"node {facts.node_id} of cluster {facts.cluster_id}"
        return None, fail(
            "journal", f"{directory} belongs to {whose}; check [node] data_dir"
        )
    words = f"entries {facts.first_index} to {facts.last_index} are undamaged"
    if facts.unfinished_bytes and not running:
        words += (
            f"; the node will delete {facts.unfinished_bytes} bytes of an unfinished "
            "write at its next start"
        )
    return facts, ok("journal", words)


def _not_there(subject: str, path: Path, *, prepared: bool) -> Finding:
    if prepared:
        return ok(subject, f"the node makes {path} at its next start")
    return warn(subject, f"{path} does not exist yet")


def check_state(
    path: Path,
    *,
    journal: JournalFacts | None,
    ring: KeyRing | None,
    prepared: bool = False,
) -> Iterator[Finding]:
    """
    Check the database, and verify the audit chain.

    *prepared* is whether the node is set up to make it at its next start.
    """
    if not path.exists():
        yield _not_there("state", path, prepared=prepared)
        return
    try:
        uri = read_only_uri(path)
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, isolation_level=None)
        ) as db:
            db.execute("BEGIN")  # All reads see one moment.
            yield from _check_database(db, journal, ring)
    except sqlite3.DatabaseError as error:
        yield fail("state", f"{path}: {error}; {_REPLACE}")
        return
    try:
        with contextlib.closing(open_log(path)) as log:
            log.execute("BEGIN")
            yield _check_chain(path, log)
            yield from _check_kept(log)
    except sqlite3.DatabaseError as error:
        yield fail("audit log", f"{error}; {_keep(path)}")


def _check_database(
    db: sqlite3.Connection, journal: JournalFacts | None, ring: KeyRing | None
) -> Iterator[Finding]:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        yield fail(
            "state",
            f"format {version} is newer than this software: install a newer release",
        )
    (checked,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if checked != "ok":
        yield fail("state", f"the database is damaged ({checked}); {_REPLACE}")
        return
    meta = dict(db.execute("SELECT name, value FROM meta"))
    applied = int(meta.get("applied_index", 0))
    if journal is not None and applied > journal.last_index:
        yield fail(
            "state",
            f"the state includes entry {applied}, but the journal ends at entry "
            f"{journal.last_index}; {_REPLACE}",
        )
    else:
        yield ok("state", f"the database is undamaged and includes entry {applied}")
    cluster_id = meta.get("cluster_id")
    begins = journal is not None and applied == journal.first_index and journal.begins
    if ring is not None and begins == ring.cluster_id:
        yield ok(
            "cluster",
            f"at its next start the node begins cluster {begins} with the state of "
            f"{cluster_id}",
        )
    elif ring is not None and cluster_id not in (None, ring.cluster_id):
        yield fail(
            "key ring",
            f"the state belongs to another cluster, {cluster_id}: use that "
            "cluster's key ring",
        )
    if ring is not None and meta.get("key_id", ring.active) not in ring.key_ids:
        yield fail(
            "key ring",
            f"key {meta['key_id']}, which the cluster uses, is missing: copy the key "
            "ring of another node",
        )


def _keep(path: Path) -> str:
    return (
        f"leave {file_of(path)} in its place and start the node: it finds the damage, "
        "keeps what is undamaged, and fetches the rest from the other members; on a node "
        "that is alone, also keep its backups, because no other copy may exist"
    )


def _check_kept(db: sqlite3.Connection) -> Iterator[Finding]:
    """Check that sealed events leave the state: it grows while a voter lacks them (U1)."""
    kept = kept_in_state(db)
    if len(kept) <= KEPT_MAX:
        return
    wanted = ranges_of(kept)
    lagging = [
        node_id
        for node_id, holding in sorted(segments.holdings(db).items())
        if common(wanted, holding.held) != wanted
    ]
    names = ", ".join(lagging) or "a member that has told nothing yet"
    yield warn(
        "audit segments",
        f"the state keeps {len(kept)} sealed segments, and grows, until all voters have "
        f"stored them; not all are stored by: {names}; start or mend these members, or "
        "remove them",
    )


def _check_chain(path: Path, db: sqlite3.Connection) -> Finding:
    """Recompute the hash of every audit event from the previous one (U1)."""
    previous, sequence, missing, gone = GENESIS_HASH, 0, 0, 0
    lost, removed = frozenset(segments.lost(db)), archives.removed(db)
    sealed = {each.first_sequence: each for each in segments.all_sealed(db)}
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
        while event.sequence > sequence + 1 and (gap := sealed.get(sequence + 1)):
            sequence, previous = gap.last_sequence, gap.hash_after
            if gap.number > removed.through:
                missing += 0 if gap.number in lost else gap.events
                gone += gap.events if gap.number in lost else 0
        if 0 < event.sequence <= sequence:
            continue  # The end of a segment whose beginning is missing: it is fetched.
        sequence += 1
        if event.sequence != sequence or chain_hash(previous, event) != stored_hash:
            in_file = any(sequence <= each.last_sequence for each in sealed.values())
            return fail(
                "audit log",
                f"the chain breaks at event {sequence}: the file was changed or is "
                "damaged; compare it with the other nodes, then "
                f"{_keep(path) if in_file else _REPLACE}",
            )
        previous = stored_hash
    head = previous.hex()[:16] if sequence else "none"
    if missing:
        return warn(
            "audit log",
            f"{missing} of {sequence} events are missing on this node; it fetches them "
            "from the other members while it runs",
        )
    words = [f"{sequence} events in an unbroken chain, head {head}"]
    if removed.through:
        words.append(f"retention has removed events 1 to {removed.last_sequence}")
    if gone:
        words.append(f"{gone} were declared lost")
    return ok("audit log", "; ".join(words))

# SPDX-License-Identifier: Apache-2.0
"""Check of the key by which the other members know this node (P5a)."""

import contextlib
import sqlite3
from collections.abc import Iterator

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.preparation import STATE
from sparecode_node.replication.members import key_in
from sparecode_node.replication.offline.inspection import JournalFacts
from sparecode_node.statemachine.tables.membership import member_keys
from sparecode_node.statemachine.tables.schema import read_only_uri
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn

NAME = "member key"
RUNBOOK = "docs/runbooks/expired-certificates.md"


def check_own_key(config: Config, journal: JournalFacts | None) -> Iterator[Finding]:
    """
    Compare the key of this node's certificate with the one in its state.

    A new epoch forgets the keys: those of a state that has not begun it do not count.
    """
    path = config.node.data_dir / STATE
    try:
        key = key_in(config.peers.certificate.read_bytes())
    except OSError:
        return  # `check_certificates` reports it.
    with (
        # `check_state` reports other errors. Below feature level 2 there is no table.
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(sqlite3.connect(read_only_uri(path), uri=True)) as db,
    ):
        if journal is not None and journal.begins:
            row = db.execute("SELECT value FROM meta WHERE name = 'applied_index'")
            (applied,) = row.fetchone() or (0,)
            if int(applied) == journal.first_index:
                return
        recorded = member_keys(db)
        own = recorded.get(NodeId(config.node.id))
        if own is None:
            yield ok(NAME, f"{key}; the cluster has not recorded it yet")
        elif own.accepts(key):
            yield ok(NAME, f"{key}, as the cluster has recorded")
        else:
            yield fail(
                NAME,
                f"{config.peers.certificate} has the key {key}, but the cluster has "
                f"recorded {own.fingerprint}: the other members refuse this node. Put "
                f"the recorded key back, or let them accept this one: {RUNBOOK}",
            )
        for node_id, accepted in sorted(config.accept_keys.items()):
            other = recorded.get(NodeId(node_id))
            if other is not None and other.accepts(accepted):
                yield warn(
                    NAME,
                    f"[peers.accept_keys] names the key of {node_id}, which the cluster "
                    f"has recorded: delete the line from {config.path}",
                )

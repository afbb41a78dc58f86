# SPDX-License-Identifier: Apache-2.0
"""Checks whether an entry of the log has stopped this node."""

import contextlib
import sqlite3
from collections.abc import Iterator

from sparecode_node.config import Config
from sparecode_node.membership.preparation import STATE
from sparecode_node.membership.skipping import folder_of
from sparecode_node.replication.log.skips import RUNBOOK
from sparecode_node.statemachine.tables.schema import read_only_uri
from sparecode_node.tool.doctor.findings import Finding, fail


def check_stop(config: Config) -> Iterator[Finding]:
    """Check the entry at which this node stopped last; it may be behind it by now."""
    stop = folder_of(config).stop()
    if stop is None or _applied_index(config) >= stop.index:
        return
    statements = folder_of(config).statements()
    signed = sorted({each.member for each in statements if each.index == stop.index})
    yield fail(
        "log",
        f"the node stops at entry {stop.index} ({stop.commands}): {stop.cause}; "
        f"statements to skip it are here of: {', '.join(signed) or 'no member'}; what to "
        f"do: {RUNBOOK}",
    )


def _applied_index(config: Config) -> int:
    uri = read_only_uri(config.node.data_dir / STATE)
    with (
        contextlib.suppress(sqlite3.Error),  # `check_state` reports it.
        contextlib.closing(sqlite3.connect(uri, uri=True)) as db,
    ):
        row = db.execute("SELECT value FROM meta WHERE name = 'applied_index'")
        return int(next(row, (0,))[0])
    return 0

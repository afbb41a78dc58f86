# SPDX-License-Identifier: Apache-2.0
"""What `sparecode-node recover` prints of the audit events that a node lacks."""

from pathlib import Path

import typer

from sparecode_node.domain.segments import in_words
from sparecode_node.membership.preparation import STATE
from sparecode_node.replication.offline.refounding import SurvivingLog
from sparecode_node.statemachine.missing_segments import MissingSegments
from sparecode_node.statemachine.sealed_events import file_of

AUDIT_FILE = file_of(Path(STATE)).name


def print_missing_segments(own: SurvivingLog, missing: MissingSegments) -> None:
    """Print which older audit events the new cluster would lack, and who has them."""
    if not missing.ranges:
        return
    typer.echo(
        f"""WARNING: {own.node_id} lacks segments {in_words(missing.ranges)} of the audit log,
{missing.events} older events. As the new cluster it has no member to fetch them from:
pages, exports and backups of them stay incomplete, whatever else the log proves."""
    )
    for node_id, ranges in missing.holders.items():
        typer.echo(f"  {node_id} has told that it has segments {in_words(ranges)}.")
    typer.echo(
        f"""If another node has as much of the log and lacks none, recover there. Otherwise
keep {AUDIT_FILE} of the nodes above: before {own.node_id} starts, copy it into this
node's data folder as {AUDIT_FILE}.damaged-101 (102, ...; each with its -wal, if there
is one). The node takes from it what the audit log proves."""
    )

# SPDX-License-Identifier: Apache-2.0
"""The state of the members, in lines and rows: for `status` and `watch`."""

from datetime import timedelta

from sparecode_client.cli.terminal.words import show_time
from sparecode_client.values.cluster import ClusterStatus, Member

COLUMNS = ("Node", "Role", ">Term", ">Commit", ">Applied", ">Lag", ">Clock", "Version")
"""Of what `status` and `watch` show of a member."""


def summary(seen: ClusterStatus) -> str:
    """Return the cluster in a line."""
    cluster = seen.cluster_id or "not initialized yet"
    primary = f"primary {seen.primary}" if seen.primary else "no primary known"
    quorum = "quorum reached" if seen.quorum else "NO QUORUM"
    return f"Cluster {cluster}, seen from {seen.node_id}: {primary}, {quorum}."


def last_backup(seen: ClusterStatus) -> str:
    """Return when there was a backup last."""
    if seen.last_backup_time is None:
        return f"Last backup: none that {seen.node_id} knows of."
    return (
        f"Last backup: {show_time(seen.last_backup_time)}, with everything up to index "
        f"{seen.last_backup_index}."
    )


def row(member: Member) -> list[str]:
    """Return a member's row under `COLUMNS`."""
    if not member.reachable:
        return [member.node_id, "unreachable", *["-"] * 6]
    return [
        member.node_id,
        "?" if member.role is None else member.role.value,
        str(member.term),
        str(member.commit_index),
        str(member.applied_index),
        str(member.lag),
        "-" if member.clock_offset is None else _offset(member.clock_offset),
        member.version,
    ]


def _offset(offset: timedelta) -> str:
    return f"{offset / timedelta(milliseconds=1):+.0f} ms"

# SPDX-License-Identifier: Apache-2.0
"""The cluster: id, time, feature level, last backup."""

from dataclasses import dataclass

from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.feature_level import FIRST


async def cluster_id(transaction: ReadTransaction) -> str:
    """Return the cluster's id; empty before it is initialized."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'cluster_id'")
    return str(row["value"]) if row else ""


async def now_ms(transaction: ReadTransaction) -> int:
    """Return the log's time: that of the newest call applied here (T5)."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'now_ms'")
    return int(row["value"]) if row else 0


async def is_open(transaction: ReadTransaction) -> bool:
    """Return whether the cluster serves agents: after a restore it is opened first (E2)."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'not_open'")
    return not (row and row["value"])


async def feature_level(transaction: ReadTransaction) -> int:
    """Return the feature level of the cluster."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'feature_level'")
    return int(row["value"]) if row else FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class LastBackup:
    """The newest backup that was delivered completely."""

    taken_at_ms: int
    index: int
    """The last log index that the backup contains."""


async def last_backup(transaction: ReadTransaction) -> LastBackup | None:
    """Return the last recorded backup; None: there was none."""
    rows = await transaction.all(
        "SELECT name, value FROM meta WHERE name IN ('backup_at_ms', 'backup_index')"
    )
    values = {row["name"]: int(row["value"]) for row in rows}
    if not values:
        return None
    return LastBackup(taken_at_ms=values["backup_at_ms"], index=values["backup_index"])

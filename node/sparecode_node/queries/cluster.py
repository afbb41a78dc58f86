# SPDX-License-Identifier: Apache-2.0
"""The cluster's own rows."""

from dataclasses import dataclass

from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.feature_level import FIRST


async def cluster_id(transaction: ReadTransaction) -> str:
    """Return the cluster's id; empty before it is initialized."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'cluster_id'")
    return str(row["value"]) if row else ""


async def now_ms(transaction: ReadTransaction) -> int:
    """Return the log's time: that of the newest call that is applied here (T5)."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'now_ms'")
    return int(row["value"]) if row else 0


async def feature_level(transaction: ReadTransaction) -> int:
    """Return the level that all members know, as it was raised."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'feature_level'")
    return int(row["value"]) if row else FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class LastBackup:
    """The newest backup whose last piece was taken."""

    taken_at_ms: int
    index: int
    """It has everything up to here."""


async def last_backup(transaction: ReadTransaction) -> LastBackup | None:
    """Return the last backup that the log knows of; None: there was none yet."""
    rows = await transaction.all(
        "SELECT name, value FROM meta WHERE name IN ('backup_at_ms', 'backup_index')"
    )
    noted = {row["name"]: int(row["value"]) for row in rows}
    if not noted:
        return None
    return LastBackup(taken_at_ms=noted["backup_at_ms"], index=noted["backup_index"])

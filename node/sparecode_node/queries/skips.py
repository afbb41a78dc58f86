# SPDX-License-Identifier: Apache-2.0
"""Skipped entries, and the members' statements that are recorded."""

from sparecode_node.queries.state import ReadTransaction


async def is_missing(
    transaction: ReadTransaction, index: int, digest: str, member: str
) -> bool:
    """Return whether an entry was skipped, and a member's statement is not recorded."""
    row = await transaction.one(
        "SELECT EXISTS (SELECT 1 FROM skip_statements "
        "WHERE entry = :index AND member = :member) AS noted "
        "FROM skipped_entries WHERE entry = :index AND digest = :digest",
        index=index,
        digest=digest,
        member=member,
    )
    return row is not None and not row["noted"]

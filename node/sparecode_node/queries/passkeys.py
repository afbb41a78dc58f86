# SPDX-License-Identifier: Apache-2.0
"""Administrators' passkeys (P8)."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.queries.state import ReadTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyView:
    """A passkey, as its owner sees it."""

    credential_id: bytes
    label: str
    public_key: bytes
    added_at_ms: int
    used_at_ms: int | None


async def all_of(
    transaction: ReadTransaction, name: AdministratorName
) -> list[PasskeyView]:
    """Return the passkeys of an administrator, oldest first."""
    rows = await transaction.all(
        "SELECT credential_id, label, public_key, added_at_ms, used_at_ms "
        "FROM passkeys WHERE administrator = :name ORDER BY added_at_ms, credential_id",
        name=name,
    )
    return [
        PasskeyView(
            credential_id=row["credential_id"],
            label=row["label"],
            public_key=row["public_key"],
            added_at_ms=row["added_at_ms"],
            used_at_ms=row["used_at_ms"],
        )
        for row in rows
    ]

# SPDX-License-Identifier: Apache-2.0
"""What an administrator's password is hashed with."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.queries.state import ReadTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordParameters:
    """The salt of an administrator's password, and the version it belongs to (T2)."""

    salt: bytes
    version: int


async def password_parameters(
    transaction: ReadTransaction, name: AdministratorName
) -> PasswordParameters | None:
    """Return what to hash the password of this administrator with."""
    row = await transaction.one(
        "SELECT password_salt, version FROM administrators WHERE name = :name",
        name=name,
    )
    if row is None:
        return None
    return PasswordParameters(salt=row["password_salt"], version=row["version"])

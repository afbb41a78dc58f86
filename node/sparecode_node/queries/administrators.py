# SPDX-License-Identifier: Apache-2.0
"""Administrators, and the parameters for hashing their passwords."""

from dataclasses import dataclass, field, replace

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.etags import ADMINISTRATOR, etag
from sparecode_node.domain.ids import AdministratorName, KeyId, SessionId
from sparecode_node.queries import pages
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordParameters:
    """What a node needs to hash an administrator's password for a command (T2)."""

    salt: bytes
    version: int
    """Version of the administrator's row, which the command carries."""
    key_id: KeyId
    """Key that the password is sealed with."""
    second_factor: bool
    """Whether sign-in needs a code or a passkey as well."""
    code: bool
    """Whether there is a secret of time-based codes."""


_HAS_FACTOR = (
    "(length(sealed_factor) > 0 "
    "OR EXISTS (SELECT 1 FROM passkeys WHERE passkeys.administrator = name))"
)


async def password_parameters(
    transaction: ReadTransaction, name: AdministratorName
) -> PasswordParameters | None:
    """Return the parameters for hashing the password of this administrator."""
    row = await transaction.one(
        f"SELECT password_salt, version, key_id, {_HAS_FACTOR} AS second_factor, "
        "length(sealed_factor) > 0 AS code "
        "FROM administrators WHERE name = :name",
        name=name,
    )
    if row is None:
        return None
    return PasswordParameters(
        salt=row["password_salt"],
        version=row["version"],
        key_id=KeyId(row["key_id"]),
        second_factor=bool(row["second_factor"]),
        code=bool(row["code"]),
    )


async def super_administrators(transaction: ReadTransaction) -> list[str]:
    """Return the names of the super administrators."""
    rows = await transaction.all(
        "SELECT name FROM administrators WHERE role = :role ORDER BY name",
        role=Role.SUPER_ADMIN,
    )
    return [row["name"] for row in rows]


async def has_code(transaction: ReadTransaction, session_id: SessionId) -> bool:
    """Return whether the owner of the session has a secret of time-based codes."""
    row = await transaction.one(
        "SELECT length(sealed_factor) > 0 AS yes FROM administrators "
        "JOIN sessions ON administrator = name WHERE session_id = :session_id",
        session_id=session_id,
    )
    return bool(row and row["yes"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AdministratorView:
    """A person who manages the service."""

    name: str
    role: Role
    enabled: bool
    username: str
    """The user that is the same person; empty: declared to be no user."""
    temporary: bool
    """Whether another administrator chose the password."""
    second_factor: bool = False
    """Whether sign-in needs a code or a passkey as well."""
    etag: str = field(default="", compare=False)


async def page(
    transaction: ReadTransaction, *, size: int, page_token: str
) -> Page[AdministratorView]:
    """Return a page of administrators, ordered by name."""
    rows = await transaction.all(
        f"""
        SELECT name, role, administrators.enabled AS enabled, user_id, username, temporary,
               {_HAS_FACTOR} AS second_factor
        FROM administrators LEFT JOIN users USING (user_id)
        WHERE name > :after ORDER BY name LIMIT :rows
        """,
        after=pages.decode(page_token),
        rows=size + 1,
    )
    views = [
        AdministratorView(
            name=row["name"],
            role=Role(row["role"]),
            enabled=bool(row["enabled"]),
            username=row["username"] or "",
            temporary=bool(row["temporary"]),
            second_factor=bool(row["second_factor"]),
        )
        for row in rows
    ]
    views = [
        replace(each, etag=etag(each, ADMINISTRATOR, row["user_id"]))
        for each, row in zip(views, rows, strict=True)
    ]
    return pages.page(views, size, lambda each: each.name)

# SPDX-License-Identifier: Apache-2.0
"""Sign-ins that wait for their approval in a browser (P9)."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from sparecode_node.domain.browser_logins import LoginState
from sparecode_node.domain.ids import AdministratorName
from sparecode_node.queries.state import ReadTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingLogin:
    """A program's request to sign in."""

    login_id: str
    administrator: AdministratorName
    state: LoginState
    known_device: bool
    """Whether its administrator has signed in from there before."""
    address: str
    client_name: str
    """What the program calls its computer."""
    asked_at_ms: int
    ends_at_ms: int


async def by_device_code(
    transaction: ReadTransaction, login_ids: Sequence[str], now_ms: int
) -> WaitingLogin | None:
    """Return the request with one of these hashes of its device code."""
    for login_id in login_ids:
        row = await transaction.one(
            "SELECT * FROM browser_logins "
            "WHERE login_id = :login_id AND ends_at_ms > :now_ms",
            login_id=login_id,
            now_ms=now_ms,
        )
        if row is not None:
            return _view(row)
    return None


async def by_user_code(
    transaction: ReadTransaction,
    code_tags: Sequence[bytes],
    administrator: AdministratorName,
    now_ms: int,
) -> WaitingLogin | None:
    """Return the administrator's request with one of these hashes of its user code."""
    for code_tag in code_tags:
        row = await transaction.one(
            "SELECT * FROM browser_logins WHERE code_tag = :code_tag "
            "AND administrator = :administrator AND ends_at_ms > :now_ms",
            code_tag=code_tag,
            administrator=administrator,
            now_ms=now_ms,
        )
        if row is not None:
            return _view(row)
    return None


def _view(row: sqlite3.Row) -> WaitingLogin:
    return WaitingLogin(
        login_id=row["login_id"],
        administrator=AdministratorName(row["administrator"]),
        state=LoginState(row["state"]),
        known_device=bool(row["device"]),
        address=row["address"],
        client_name=row["client_name"],
        asked_at_ms=row["asked_at_ms"],
        ends_at_ms=row["ends_at_ms"],
    )

# SPDX-License-Identifier: Apache-2.0
"""Files of users, in CSV."""

from dataclasses import dataclass

from sparecode_node.domain.users import USERNAME_LENGTH_MAX, fold
from sparecode_node.services.files.csv_files import read_csv

ROWS_MAX = 10_000
NEEDED = ("username",)
KNOWN = ("display_name", "email", "groups", "language", "manager_email")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    """One row of a file of users, as it was typed."""

    username: str
    display_name: str = ""
    email: str = ""
    groups: str = ""
    language: str = ""
    manager_email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFileRow:
    """One row of the file, and what is known of it without the state."""

    row: int
    user: UserRow
    problem: str = ""
    first: int
    """The first row with the same folded username."""


def read_user_csv(content: bytes) -> list[UserFileRow]:
    """
    Return every row of the file, in its order.

    Raises `InvalidFieldError` if the file as a whole cannot be read.
    """
    first: dict[str, int] = {}
    rows = []
    for number, row in enumerate(
        read_csv(content, needed=NEEDED, known=KNOWN, at_most=ROWS_MAX), start=1
    ):
        user = UserRow(**{name: row.cells.get(name, "") for name in (*NEEDED, *KNOWN)})
        rows.append(
            UserFileRow(
                row=number,
                user=user,
                problem=row.problem,
                first=first.setdefault(_name_key(user.username), number),
            )
        )
    return rows


def _name_key(username: str) -> str:
    """Fold a name. One that is too long is refused anyway, and takes long to fold."""
    return fold(username) if len(username) <= USERNAME_LENGTH_MAX else username

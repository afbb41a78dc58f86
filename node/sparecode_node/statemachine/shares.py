# SPDX-License-Identifier: Apache-2.0
"""
Shares of the table of request ids: no caller can fill it alone (Q3).

A caller may add a row while it has fewer rows than twice the room that is left. So one
caller alone gets two thirds of the table, and each of *n* busy callers gets
2 / (2 n + 1) of it: room for others remains, however many callers are busy. This is the
dynamic threshold of shared packet buffers (Choudhury and Hahne, IEEE/ACM Transactions on
Networking 6(2), 1998). It needs no setting per caller.

A sixteenth of the table is reserved for signing in and for changes that stop an attack.
"""

import collections
import sqlite3

from sparecode_node.statemachine import commands

FACTOR = 2
"""A caller may have this many times the room that is left."""
RESERVED_PART = 16
"""This part of the table is reserved: a sixteenth."""
SIGN_IN = "SessionService/Login"
"""The sign-ins of an administrator are counted apart from the other calls."""


class Shares:
    """The number of rows of each caller. All replicas count the same."""

    def __init__(self) -> None:
        self._rows: collections.Counter[tuple[str, bool]] = collections.Counter()
        self.total = 0

    def count(self, db: sqlite3.Connection) -> None:
        """Count the rows of the table."""
        self._rows.clear()
        for caller, method, rows in db.execute(
            "SELECT caller, method, count(*) FROM requests GROUP BY caller, method"
        ):
            self._rows[_share(caller, method)] += rows
        self.total = self._rows.total()

    def add(self, caller: str, method: str) -> None:
        """Count a new row."""
        self._rows[_share(caller, method)] += 1
        self.total += 1

    def remove(self, caller: str, method: str) -> None:
        """Count a deleted row."""
        share = _share(caller, method)
        self._rows[share] -= 1
        self.total -= 1
        if not self._rows[share]:
            del self._rows[share]

    def has_room(self, call: commands.Call, rows_max: int) -> bool:
        """Return whether the caller may add a row to a table of *rows_max* rows."""
        command = call.command
        if isinstance(command, commands.CloseSession):
            return self.total < rows_max  # Each ends the session that it needs.
        if not is_reserved(command):
            rows_max -= rows_max // RESERVED_PART
        rows = self._rows[_share(call.request.caller, call.request.method)]
        return rows < FACTOR * (rows_max - self.total)


def is_reserved(command: commands.Command) -> bool:
    """Return whether a command may use the reserve: it signs in, or stops an attack."""
    match command:
        case (
            commands.UpdateAdministrator()
            | commands.UpdateUser()
            | commands.UpdateAgent()
        ):
            return command.enabled is False
        case (
            commands.OpenSession()
            | commands.CloseSession()
            | commands.DenyCertificate()
            | commands.RemoveAgent()
            | commands.RemoveAdministrator()
            | commands.RemoveMember()
            | commands.ResetAdministrator()
            | commands.CancelReset()
            | commands.ChangePassword()
            | commands.RemoveSecondFactor()
            | commands.DisableToken()
            | commands.DisableEmergencyAccess()
            | commands.Approve()
            | commands.Reject()
        ):
            return True
        case _:
            return False


def _share(caller: str, method: str) -> tuple[str, bool]:
    return caller, method == SIGN_IN

# SPDX-License-Identifier: Apache-2.0
"""
Shares of the table of request ids: no caller can fill it alone (Q3).

A caller may add a row while it has fewer rows than twice the room that is left. So one
caller alone gets two thirds of the table, and each of *n* busy callers gets
2 / (2 n + 1) of it: room for others remains, however many callers are busy. This is the
dynamic threshold of shared packet buffers (Choudhury and Hahne, IEEE/ACM Transactions on
Networking 6(2), 1998). It needs no setting per caller.

A sixteenth of the table is reserved for signing in and for changes that stop an attack.
The reserve is shared in the same way, and its rows are counted apart: no number of
callers can use it to take the room of the others.
"""

import collections
import sqlite3

from sparecode_node.statemachine import commands
from sparecode_node.statemachine.tables import request_counts
from sparecode_node.statemachine.tables.request_counts import SIGN_IN, Share

FACTOR = 2
"""A caller may have this many times the room that is left."""
RESERVED_PART = 16
"""This part of the table is reserved: a sixteenth."""


class Shares:
    """The number of rows of each caller. All replicas count the same."""

    def __init__(self) -> None:
        self._rows: collections.Counter[Share] = collections.Counter()
        self._in_reserve = 0
        self.total = 0
        self._changed: set[Share] | None = None
        """What has changed since the numbers were written; None: all, or never written."""

    def load(self, db: sqlite3.Connection, index: int) -> None:
        """Read the numbers that the entry with this index has written, or count."""
        counts = request_counts.read(db, index)
        if counts is None:
            self.count(db)
        else:
            self._take(counts)
            self._changed = set()

    def count(self, db: sqlite3.Connection) -> None:
        """Count the rows of the table."""
        self._take(request_counts.count(db))
        self._changed = None

    def store(self, db: sqlite3.Connection, index: int) -> None:
        """Write the numbers at the end of an entry, in its transaction."""
        if self._changed is None:
            request_counts.replace(db, index, dict(self._rows))
        else:
            changed = {share: self._rows[share] for share in self._changed}
            request_counts.update(db, index, changed)
        self._changed = set()

    def _take(self, counts: request_counts.Counts) -> None:
        self._rows = collections.Counter(counts)
        self.total = self._rows.total()
        self._in_reserve = sum(
            rows for share, rows in counts.items() if share.in_reserve
        )

    def add(self, caller: str, method: str, *, in_reserve: bool) -> None:
        """Count a new row."""
        self._count(caller, method, in_reserve=in_reserve, rows=1)

    def remove(self, caller: str, method: str, *, in_reserve: bool) -> None:
        """Count a deleted row."""
        self._count(caller, method, in_reserve=in_reserve, rows=-1)

    def has_room(self, call: commands.Call, rows_max: int) -> bool:
        """Return whether the caller may add a row to a table of *rows_max* rows."""
        if self._has_common_room(call, rows_max):
            return True
        if not is_reserved(call.command):
            return False
        left = rows_max // RESERVED_PART - self._in_reserve
        if isinstance(call.command, commands.CloseSession):
            return left > 0  # Each ends the session that it needs.
        return self._rows_of(call, in_reserve=True) < FACTOR * left

    def goes_to_reserve(self, call: commands.Call, rows_max: int) -> bool:
        """Return whether the row of a call belongs to the reserve."""
        return is_reserved(call.command) and not self._has_common_room(call, rows_max)

    def _has_common_room(self, call: commands.Call, rows_max: int) -> bool:
        """Return whether the caller has room outside the reserve."""
        common = rows_max - rows_max // RESERVED_PART
        left = common - (self.total - self._in_reserve)
        return self._rows_of(call, in_reserve=False) < FACTOR * left

    def _rows_of(self, call: commands.Call, *, in_reserve: bool) -> int:
        request = call.request
        return self._rows[_share(request.caller, request.method, in_reserve=in_reserve)]

    def _count(self, caller: str, method: str, *, in_reserve: bool, rows: int) -> None:
        share = _share(caller, method, in_reserve=in_reserve)
        self._rows[share] += rows
        self.total += rows
        self._in_reserve += rows * in_reserve
        if not self._rows[share]:
            del self._rows[share]
        if self._changed is not None:
            self._changed.add(share)


def is_reserved(command: commands.Command) -> bool:
    """Return whether a command may use the reserve: it signs in, or stops an attack."""
    match command:
        case commands.UpdateAdministrator() | commands.UpdateUser():
            return command.enabled is False
        case commands.UpdateAgent():
            return command.enabled is False or bool(command.end_keys)
        case (
            commands.OpenSession()
            | commands.CloseSession()
            | commands.Reauthenticate()
            | commands.EndSession()
            | commands.ApproveBrowserLogin()
            | commands.RefuseBrowserLogin()
            | commands.CollectBrowserLogin()
            | commands.DenyCertificate()
            | commands.RemoveAgent()
            | commands.RemoveAdministrator()
            | commands.RemoveMember()
            | commands.ResetAdministrator()
            | commands.CancelReset()
            | commands.ChangePassword()
            | commands.RemoveSecondFactor()
            | commands.RemovePasskey()
            | commands.DisableToken()
            | commands.DisableEmergencyAccess()
            | commands.Approve()
            | commands.Reject()
        ):
            return True
        case _:
            return False


def _share(caller: str, method: str, *, in_reserve: bool) -> Share:
    return Share(caller, method == SIGN_IN, in_reserve)

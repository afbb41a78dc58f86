# SPDX-License-Identifier: Apache-2.0
"""The context of a call while it is applied: database, time, policy, caller."""

import sqlite3
from dataclasses import dataclass, field

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.authentication import Event
from sparecode_node.domain.keys import KeysInState
from sparecode_node.domain.personal_notices import Told
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.users import User
from sparecode_node.statemachine.commands import Call


@dataclass(slots=True, kw_only=True)
class Applying:
    """
    One call while it is applied. Handlers set its fields for the audit log.

    The writes of a `Rejected` call are undone unless *keep_writes* is set: a failed
    sign-in must be counted.
    """

    db: sqlite3.Connection
    call: Call
    index: int
    now_ms: int
    policy: Policy
    keys: KeysInState
    """Values made with a key that is not in use must not enter the state (T2)."""
    feature_level: int
    """Of the cluster. A rule that a level changes asks it (see `feature_level`)."""
    administrator: Administrator | None = None
    """The owner of the session; None for agents and nodes."""
    target: str = ""
    person: User | None = None
    """The user whose passcode is judged; None for other commands or unknown users."""
    actor: str = ""
    """The recorded actor; empty: the administrator, or else the caller."""
    outcome: str = ""
    """The recorded outcome of an applied command; empty: `applied`."""
    reason: str = ""
    detail: str = ""
    events: list[Event] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    """What users hear of by mail beside the events (N6)."""
    keep_writes: bool = False
    unrecorded: bool = False
    """A command that decides nothing, so the audit log has no event of it."""

    @property
    def acting_administrator(self) -> Administrator:
        """
        The administrator of a command that only administrators may send.

        The machine has checked that there is one: raises `AssertionError` otherwise.
        """
        if self.administrator is None:
            raise AssertionError("an administrator's command without an administrator")
        return self.administrator

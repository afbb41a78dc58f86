# SPDX-License-Identifier: Apache-2.0
"""What a command is applied with: the database, the time, the policy, the caller."""

import sqlite3
from dataclasses import dataclass, field

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.authentication import Event
from sparecode_node.domain.keys import KeysInState
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.users import User
from sparecode_node.statemachine.commands import Call


@dataclass(slots=True, kw_only=True)
class Applying:
    """
    One call while it is applied. What it notes goes into the audit log.

    Writes of a call that ends in `Rejected` are undone, unless it says
    *keep_writes*: a failed sign-in must be counted.
    """

    db: sqlite3.Connection
    call: Call
    index: int
    now_ms: int
    policy: Policy
    keys: KeysInState
    """What is made with a key that is not in use must not enter the state (T2)."""
    feature_level: int
    """Of the cluster. A rule that a level changes asks it (see `feature_level`)."""
    administrator: Administrator | None = None
    """Whose session it is; None for agents and nodes."""
    target: str = ""
    person: User | None = None
    """Whose passcode is judged, if it is that, and there is somebody."""
    actor: str = ""
    """Who is recorded; empty: the administrator, or else the caller."""
    outcome: str = ""
    """What is recorded of a command that is applied; empty: that it was."""
    reason: str = ""
    detail: str = ""
    events: list[Event] = field(default_factory=list)
    keep_writes: bool = False

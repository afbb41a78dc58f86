# SPDX-License-Identifier: Apache-2.0
"""
What a release can read and do, as one number; and that of the whole cluster.

A replica that does not know a command must not skip it: it stops. So a command, or a
field of one, that is newer than the oldest member must not get into the log. Members
say which level they know, and when all of them know a higher one, the primary has it
raised: by a command, so that it is part of the state, and never goes back.

A rule that decides otherwise than before asks `StateMachine.feature_level`, so that
replicas of both releases decide alike until it is raised. docs/operations.md tells
operators; replication/DESIGN.md tells the rest.
"""

import sqlite3

from sparecode_node.statemachine.tables import meta

FIRST = 1
"""The commands up to `Reject`; members of that level do not speak of levels."""

NEWEST = 4
"""What this software knows. A release that adds to the log raises it, by one."""

MEMBERS_CHANGE = 2
"""From this level on the log may have entries that change the members."""

ONE_IS_ONE = 3
"""From this level on the log says `1 token`, where it said `1 tokens`."""

SETS_END_TOGETHER = 3
"""From this level on a set that has ended is voided with one that was kept (R2)."""

PURGED_IN_STEPS = 4
"""From this level on an entry deletes so many due request ids, and no more (Q3)."""

WEIGHED_IF_CONCERNED = 4
"""From this level on a change of policy looks at live codes and lettered PINs if need be."""

OWN_ENDS_COUNT = 4
"""
From this level on a set counts until its own end. One that has ended with its token
alone stands in the way of a change, and is voided (I6, T4, R2); a lost token waits for
one that was kept and has been used up (R2).
"""


class FeatureLevelError(Exception):
    """The cluster is of a level that this software does not know."""

    def __init__(self, level: int) -> None:
        super().__init__(
            f"the cluster has feature level {level}, and this software knows "
            f"{NEWEST}: install the release that the other members run"
        )


def tokens_said(number: int, level: int) -> str:
    """Return so many tokens in words of the log, which replicas have to share."""
    return "1 token" if number == 1 and level >= ONE_IS_ONE else f"{number} tokens"


def read(db: sqlite3.Connection) -> int:
    """Return the level of a state. Raises `FeatureLevelError` if it is not known here."""
    level: int = meta.read(db, "feature_level", FIRST)
    if level > NEWEST:
        raise FeatureLevelError(level)
    return level


def raise_to(db: sqlite3.Connection, level: int) -> int:
    """
    Raise the level of a state, and return it; it never goes back.

    Raises `FeatureLevelError`: members say what they know, so this is no member's
    doing, and a replica that cannot know what comes next must stop.
    """
    if level > NEWEST:
        raise FeatureLevelError(level)
    if level > read(db):
        meta.write(db, "feature_level", level)
    return read(db)

# SPDX-License-Identifier: Apache-2.0
"""
The outbox: writes a notice for each event that a channel wants, in the event's commit (N1).

So nothing is told that was not committed, and nothing that was committed is forgotten.
A channel that cannot deliver keeps a bounded number of notices. It never refuses a call.
"""

import sqlite3

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.ids import NameKey
from sparecode_node.domain.notices import (
    DROPS_TOLD_MS,
    NOTICES_MAX,
    RANKS,
    channel_target,
    class_of,
    notice_id,
)
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables import notices as tables

NOT_TOLD_ITSELF = ("FailNotices", "NOTICES_DROPPED")
"""Events that the channel they are about does not tell: it would never be done."""


def offer(
    db: sqlite3.Connection, event: AuditEvent, *, index: int, number: int
) -> dict[str, int]:
    """
    Write the notices of an event, the *number*-th of the entry at *index*.

    Returns the channels whose drops an audit event must tell, each with their number.
    """
    event_class = class_of(event.action)
    wanting = tables.wanting(db, event_class)
    if not wanting:
        return {}
    name = notice_id(meta.read(db, "cluster_id", ""), index, number)
    dropped: dict[str, int] = {}
    for channel, kept in wanting:
        target = channel_target(NameKey(channel))
        if event.action in NOT_TOLD_ITSELF and event.target == target:
            continue
        tables.add(
            db,
            channel,
            event,
            notice_id=name,
            event_class=event_class,
            rank=RANKS[event_class],
        )
        if kept >= NOTICES_MAX:
            untold = tables.drop_one(
                db, channel, now_ms=event.at_ms, every_ms=DROPS_TOLD_MS
            )
            if untold:
                dropped[target] = untold
    return dropped

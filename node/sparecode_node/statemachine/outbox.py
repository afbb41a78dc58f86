# SPDX-License-Identifier: Apache-2.0
"""
The outbox: writes a notice for each event that a channel wants, in the event's commit (N1).

So nothing is told that was not committed, and nothing that was committed is forgotten.
A channel that cannot deliver keeps a bounded number of notices. It never refuses a call.
"""

import sqlite3
from collections.abc import Sequence

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.ids import NameKey
from sparecode_node.domain.notices import (
    DROPS_TOLD_MS,
    NOTICES_MAX,
    ChannelKind,
    channel_target,
    class_of,
    notice_id,
    rank_of,
)
from sparecode_node.domain.personal_notices import PersonalNotice, Told, Wanted
from sparecode_node.statemachine.personal_notices import (
    NOTHING_SILENT,
    personal_notices,
)
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables import notices as tables

NOT_TOLD_ITSELF = ("FailNotices", "NOTICES_DROPPED")
"""Events that the channel they are about does not tell: it would never be done."""


def offer(
    db: sqlite3.Connection,
    event: AuditEvent,
    told: Sequence[Told] = (),
    *,
    wanted: Wanted = NOTHING_SILENT,
    index: int,
    number: int,
) -> dict[str, int]:
    """
    Write the notices of an event, the *number*-th of the entry at *index*.

    *told*: what a handler tells users beside it; *wanted*: what the policy wants
    to be sent. Returns the channels whose drops an audit event must tell, each with their number.
    """
    channels = tables.keeping(db)
    if not channels:
        return {}
    event_class = class_of(event.action)
    name = notice_id(meta.read(db, "cluster_id", ""), index, number)
    drops: dict[str, int] = {}
    for each in channels:
        if each.kind is ChannelKind.MAIL:
            addressed: list[PersonalNotice | None] = [
                *personal_notices(db, event, told, wanted)
            ]
        else:
            addressed = [None] * (event_class in each.classes)
        target = channel_target(each.channel)
        if event.action in NOT_TOLD_ITSELF and event.target == target:
            continue
        for kept, personal in enumerate(addressed, start=each.kept):
            tables.add(
                db,
                each.channel,
                event,
                notice_id=name,
                event_class=event_class,
                rank=rank_of(event.action),
                personal=personal,
            )
            if kept >= NOTICES_MAX:
                dropped = tables.drop_one(
                    db, each.channel, now_ms=event.at_ms, every_ms=DROPS_TOLD_MS
                )
                if dropped:
                    drops[target] = dropped
    return drops


def untold_drops(db: sqlite3.Connection, now_ms: int) -> dict[str, int]:
    """
    Return the channels whose drops an audit event must tell now, each with their number.

    The last drops of a minute are told after it, though nothing more is dropped.
    """
    due = tables.take_untold(db, now_ms=now_ms, every_ms=DROPS_TOLD_MS)
    return {channel_target(NameKey(channel)): count for channel, count in due}

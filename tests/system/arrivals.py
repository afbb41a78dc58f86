# SPDX-License-Identifier: Apache-2.0
"""
What a receiver of notices has got, compared with what the cluster has committed (N2).

Every committed event must arrive, none that was not committed, repetitions under the
same id, and the events of a subject in their order.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError

from sparecode_client import AuditEvent
from sparecode_client.values.notices import EventClass
from sparecode_node.domain.notices import class_of
from tests.services.receiver import OK, REFUSED, Receiver

UNTOLD = frozenset({"FailNotices", "NOTICES_DROPPED"})
"""Events that the channel they are about does not tell."""


@dataclass(kw_only=True)
class Arrivals:
    """What the receiver has got, and whether it could verify it."""

    secret: str
    clocks_jump: bool = False
    """Whether a sender's clock may be wrong: then a request is refused, and no fault."""
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Notice id -> its event, in the order of first arrivals."""
    repeated: int = 0
    refused: set[str] = field(default_factory=set)
    """Notices that the receiver has not taken at first: they may come out of order."""
    faults: list[str] = field(default_factory=list)

    def take(self, hook: Receiver) -> bytes:
        """Verify the newest request, and answer it."""
        headers, body = hook.requests[-1]
        notice_id = headers["webhook-id"]
        try:
            told = Webhook(self.secret).verify(body, headers)
        except WebhookVerificationError as error:
            if self.clocks_jump and "timestamp" in str(error):
                return self.refuse(notice_id)
            self.faults.append(f"not verified: {error}")
            return OK
        event = told["data"]
        if told["id"] != notice_id:
            self.faults.append(f"{notice_id} is called {told['id']}")
        known = self.events.setdefault(notice_id, event)
        self.repeated += known is not event
        if known != event:
            self.faults.append(f"{notice_id} is {known}, and {event}")
        return OK

    def so_far(self) -> Self:
        """Return a copy of what has arrived."""
        return dataclasses.replace(
            self,
            events=self.events.copy(),
            refused=self.refused.copy(),
            faults=self.faults.copy(),
        )

    def refuse(self, notice_id: str) -> bytes:
        """Answer that a notice is not taken."""
        self.refused.add(notice_id)
        return REFUSED


def wanted(
    log: Sequence[AuditEvent], target: str, classes: Sequence[EventClass]
) -> list[AuditEvent]:
    """
    Return the events of the audit log that a channel tells: since it was created.

    *target* is its name in the audit log.
    """
    events: list[AuditEvent] = []
    begun = False
    for event in log:
        begun = begun or (event.action, event.target) == ("SaveChannel", target)
        if begun and class_of(event.action) in classes:
            if event.action in UNTOLD and event.target == target:
                continue
            events.append(event)
    return events


def dropped(log: Sequence[AuditEvent], target: str) -> int:
    """Return how many notices of a channel were dropped, by what the audit log says."""
    return sum(
        int(count[0])
        for event in log
        if (event.action, event.target) == ("NOTICES_DROPPED", target)
        and (count := re.match(r"\d+", event.detail))
    )


def differences(
    arrivals: Arrivals,
    committed: Sequence[AuditEvent],
    *,
    up_to: int | None = None,
    dropped: int = 0,
) -> list[str]:
    """
    Return what has not arrived, what was not committed, and what came too early.

    Events after the number *up_to* may still be on their way. *dropped*: as many may
    be missing.
    """
    faults = []
    events = {event.sequence: event for event in committed}
    sequences = [event["sequence"] for event in arrivals.events.values()]
    if len(set(sequences)) != len(sequences):
        faults.append("an event has two ids")
    due = {number for number in events if up_to is None or number <= up_to}
    missing = sorted(due.difference(sequences))
    if len(missing) > dropped:
        faults.append(f"{len(missing)} events have not arrived: {missing[:20]}")
    newest: dict[str, int] = {}
    for notice_id, told in arrivals.events.items():
        event = events.get(told["sequence"])
        if event is None or (
            event.action,
            event.target,
            event.outcome,
            event.detail,
        ) != (*(told["action"], told["target"], told["outcome"], told["detail"]),):
            faults.append(f"{notice_id} was not committed: {told}, but {event}")
        late = told["sequence"] < newest.get(told["target"], 0)
        if late and notice_id not in arrivals.refused:
            faults.append(f"{notice_id} came after a later one about {told['target']}")
        newest[told["target"]] = max(newest.get(told["target"], 0), told["sequence"])
    return faults

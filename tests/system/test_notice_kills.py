# SPDX-License-Identifier: Apache-2.0
"""Notices arrive though their primary is killed: a small run of `make notices-kills`."""

from pathlib import Path

import pytest
from local_cluster.cluster import LocalCluster

from sparecode_client import AuditEvent
from tests.system.arrivals import Arrivals, differences, dropped, wanted
from tests.system.notice_kills import CLASSES, strike

SEED = 20_261_128


@pytest.mark.asyncio
@pytest.mark.timeout(600)
async def test_every_event_arrives_though_the_primary_is_killed(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """(N1, N2) Under one id, and in the order of its subject; nothing else arrives."""
    result = await strike(cluster, tmp_path, events=240, kills=2, seed=SEED)
    assert result.faults == ()
    assert result.arrived == result.committed >= 240


def event(
    sequence: int,
    detail: str = "",
    *,
    action: str = "UpdateUser",
    target: str = "alice",
) -> AuditEvent:
    return AuditEvent(
        sequence=sequence,
        time=None,
        actor="administrator:root",
        node_id="n1",
        action=action,
        target=target,
        outcome="applied",
        reason="",
        detail=detail,
        previous_hash="",
        hash="",
    )


def told(*sequences: int) -> Arrivals:
    values = {"action": "UpdateUser", "target": "alice", "outcome": "applied"}
    return Arrivals(
        secret="",
        events={
            f"id-{number}": {"sequence": sequence, "detail": "", **values}
            for number, sequence in enumerate(sequences)
        },
    )


@pytest.mark.parametrize(
    ("arrivals", "committed", "words"),
    [
        (told(1, 2), [event(1), event(2)], ""),
        (told(1), [event(1), event(2)], "1 events have not arrived"),
        (told(1, 2), [event(1)], "was not committed"),
        (told(1), [event(1, "else")], "was not committed"),
        (told(2, 1), [event(1), event(2)], "came after a later one"),
        (told(1, 1), [event(1)], "two ids"),
    ],
)
def test_each_kind_of_fault_is_seen(
    arrivals: Arrivals, committed: list[AuditEvent], words: str
) -> None:
    faults = differences(arrivals, committed)
    assert bool(faults) == bool(words)
    assert words in " ".join(faults)


def test_a_refused_notice_may_come_later_and_a_dropped_one_not_at_all() -> None:
    late = told(2, 1)
    late.refused.add("id-1")
    assert differences(late, [event(1), event(2)]) == []
    assert differences(told(2), [event(1), event(2)], dropped=1) == []
    assert differences(told(), [event(1), event(2)], dropped=1) != []
    assert differences(told(1), [event(1), event(2)], up_to=1) == []
    assert differences(told(2), [event(1), event(2)], up_to=1) != []


def test_a_channel_tells_the_events_since_it_was_created_and_not_its_own_drops() -> (
    None
):
    channel = "channel siem"
    log = [
        event(1),
        event(2, action="SaveChannel", target="channel other"),
        event(3, action="SaveChannel", target=channel),
        event(4),
        event(5, action="OpenSession"),
        event(6, "12 notices, because too many wait", action="NOTICES_DROPPED"),
        event(7, "3 notices", action="NOTICES_DROPPED", target=channel),
        event(8, "1 notice", action="NOTICES_DROPPED", target=channel),
    ]
    told_by_it = wanted(log, channel, CLASSES)
    assert [each.sequence for each in told_by_it] == [3, 4, 6]
    assert dropped(log, channel) == 4

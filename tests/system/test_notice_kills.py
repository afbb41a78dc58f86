# SPDX-License-Identifier: Apache-2.0
"""Notices arrive though their primary is killed: a small run of `make notices-kills`."""

from pathlib import Path

import pytest
from local_cluster.cluster import LocalCluster

from sparecode_client import AuditEvent
from tests.system.notice_kills import Arrivals, differences, strike

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


def event(sequence: int, detail: str = "") -> AuditEvent:
    return AuditEvent(
        sequence=sequence,
        time=None,
        actor="administrator:root",
        node_id="n1",
        action="UpdateUser",
        target="alice",
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

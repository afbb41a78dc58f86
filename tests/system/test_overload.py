# SPDX-License-Identifier: Apache-2.0
"""More callers than three nodes can serve wait or are shed, without an election."""

from pathlib import Path

import pytest

from tests.bench.estate import Estate
from tests.bench.population import Population

CLIENTS = 200


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_crowd_costs_the_primary_nothing_but_time(tmp_path: Path) -> None:
    """
    Two hundred callers retry at once, whatever the answer.

    The primary keeps its heartbeat: the term stays the same. Unanswered callers are
    shed with a hint. Accepted calls have the same effect on all nodes.
    """
    with Estate(
        tmp_path / "cluster", Population(users=512, profile="testing")
    ) as estate:
        before = max(member.term for member in estate.status().members)
        run = estate.authenticate(clients=CLIENTS, seconds=60, calls=5000)
        after = estate.status()
        measured = run.measured
        assert set(measured.codes) <= {"OK", "RESOURCE_EXHAUSTED"}
        shed = measured.codes.get("RESOURCE_EXHAUSTED", 0)
        assert measured.shed_with_hint == shed
        assert measured.accepted == measured.answered > 0
        assert max(member.term for member in after.members) == before
        assert len({member.digest for member in after.members}) == 1

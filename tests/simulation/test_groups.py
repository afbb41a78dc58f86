# SPDX-License-Identifier: Apache-2.0
"""Several clusters, and slots that move between them: some seeds of `make sim-groups`."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from tests.simulation.groups.run import GroupsRun

SEEDS = range(6)


@contextlib.contextmanager
def finished(seed: int) -> Iterator[GroupsRun]:
    """Yield a run that has come to its end."""
    with contextlib.closing(GroupsRun(seed)) as run:
        run.run()
        yield run


def test_clusters_keep_every_promise_while_slots_move() -> None:
    """A code works once, wherever its user is, also after a restore (A3, A7, E1)."""
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        with finished(seed) as run:
            assert run.rules.violations == {}, f"seed {seed}"
            counts.update(run.rules.counts)
    # A simulation in which these do not happen would prove nothing.
    for each in (
        *("accepted", "moves", "canceled", "moved", "unknown", "outages"),
        *("thefts refused", "late and refused", "approved", "late approvals"),
        *("restores", "losses", "interrupted", "ended by receipt", "reclaims"),
    ):
        assert counts[each], each
    assert counts["accepted"] > 400
    assert counts["moves"] > 20


def test_a_seed_with_clusters_is_a_run() -> None:
    with finished(3) as one, finished(3) as other:
        assert one.rules.counts == other.rules.counts
        assert one.rules.accepted == other.rules.accepted
        assert one.estate.table == other.estate.table

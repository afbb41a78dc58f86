# SPDX-License-Identifier: Apache-2.0
"""Several clusters, and slots that move between them: some seeds of `make sim-groups`."""

import contextlib
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.groups.__main__ import COUNTED, RECORD_FROM_SEEDS, absent
from tests.simulation.groups.run import GroupsRun

SEEDS = range(6)


@contextlib.contextmanager
def finished(seed: int) -> Iterator[GroupsRun]:
    """Yield a run that has come to its end."""
    with contextlib.closing(GroupsRun(seed)) as run:
        run.run()
        yield run


def test_clusters_keep_every_promise_while_slots_move() -> None:
    """A passcode works once, wherever its user is, also after a restore (A3, K1, E1)."""
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
        *("several moved", "several canceled", "empty moved", "overlaps"),
        *("tokens moved", "tokencodes again", "tokencodes elsewhere"),
    ):
        assert counts[each], each
    assert counts["accepted"] > 400
    assert counts["tokencodes accepted"] > 200
    assert counts["moves"] > 20


@pytest.mark.parametrize("name", COUNTED)
def test_a_campaign_in_which_something_never_happened_has_failed(name: str) -> None:
    counts = dict.fromkeys(COUNTED, 1)
    assert absent(counts, RECORD_FROM_SEEDS) == []
    del counts[name]
    assert absent(counts, RECORD_FROM_SEEDS) == [COUNTED[name]]
    assert absent(counts, RECORD_FROM_SEEDS - 1) == []


def test_a_seed_with_clusters_is_a_run() -> None:
    with finished(3) as one, finished(3) as other:
        assert one.rules.counts == other.rules.counts
        assert one.rules.accepted == other.rules.accepted
        assert one.estate.table == other.estate.table

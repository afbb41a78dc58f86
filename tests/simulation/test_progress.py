# SPDX-License-Identifier: Apache-2.0
"""A campaign that was cut off goes on with the seeds that are left, and shows the same."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulation import progress
from tests.simulation.campaign import Campaign, Outcome
from tests.simulation.progress import Done, Progress

SEEDS = range(4)
CAMPAIGN = Campaign(recording=True)


def on(commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a commit."""
    monkeypatch.setattr(progress, "now_and_here", lambda: {"commit": commit})


def test_a_campaign_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on("c0ffee", monkeypatch)
    first = Progress.of(CAMPAIGN, SEEDS, tmp_path)
    CAMPAIGN.run(first.left(SEEDS)[:2], jobs=1, progress=first.add)
    second = Progress.of(CAMPAIGN, SEEDS, tmp_path)
    assert second.left(SEEDS) == [2, 3]
    assert second.seconds >= second.done.seconds > 0
    CAMPAIGN.run(second.left(SEEDS), jobs=1, progress=second.add)
    assert second.done.outcome == CAMPAIGN.run(SEEDS, jobs=1)
    second.forget()
    assert Progress.of(CAMPAIGN, SEEDS, tmp_path).done == Done()
    assert logging.getLogger().isEnabledFor(logging.CRITICAL), "later tests read logs"


def test_other_code_and_another_campaign_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on("c0ffee", monkeypatch)
    Progress.of(CAMPAIGN, SEEDS, tmp_path).add([0], Outcome(seeds=1))
    assert Progress.of(CAMPAIGN, SEEDS, tmp_path).left(SEEDS) == [1, 2, 3]
    others = (
        Progress.of(replace(CAMPAIGN, nodes=5), SEEDS, tmp_path),
        Progress.of(CAMPAIGN, range(9), tmp_path),
    )
    on("decaf", monkeypatch)
    for each in (*others, Progress.of(CAMPAIGN, SEEDS, tmp_path)):
        assert each.done == Done()


@pytest.mark.parametrize("commit", ["unknown", "c0ffee with changes"])
def test_nothing_is_kept_of_code_without_a_name(
    commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(commit, monkeypatch)
    Progress.of(CAMPAIGN, SEEDS, tmp_path).add([0], Outcome(seeds=1))
    assert list(tmp_path.iterdir()) == []

# SPDX-License-Identifier: Apache-2.0
"""The results page shows each kind of run with its results."""

import json
from dataclasses import replace

import pytest

from tests.faults import page, plans
from tests.faults.nemesis import FAULTS
from tests.faults.report import figures
from tests.faults.striker import Proof
from tests.faults.test_report import GHOSTS, GOOD, STRIKE
from tests.simulation import report as simulation

KILLED = replace(
    STRIKE,
    fault="kill_primary",
    proof=Proof(bit=True, words="n1 gone", success_s=0.75),
)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Keep recorded results in a temporary folder."""
    monkeypatch.setattr(page, "PAGE", tmp_path / "docs" / "results" / "faults.md")
    monkeypatch.setattr(page, "ROOT", tmp_path)
    return tmp_path / "docs" / "results" / "faults.md"


def test_each_run_replaces_the_previous_run_of_its_kind(kept):
    """A series does not replace the campaign, and a good run replaces a failed one."""
    series = plans.SERIES["failover"]
    numbers = {"seed": 1, **figures(replace(GOOD, strikes=[KILLED, KILLED]))}
    page.record(series, numbers, ["kill_primary: n1 was not ready"])
    assert "n1 was not ready" in kept.read_text()
    whole = plans.campaign(10, FAULTS, ghosts=1)
    page.record(whole, {"seed": 2, **figures(GOOD)}, [])
    page.record(series, {**numbers, "seed": 3}, [])
    text = kept.read_text()
    assert "not ready" not in text
    assert "seed 2" in text
    assert "seed 3" in text
    assert "`make faults MINUTES=10`" in text
    assert "`make faults SERIES=failover`" in text
    assert "existed** | **1.5 s** of 5 s |" in text
    assert "| next success on the survivors: median, maximum | 0.75 s, 0.75 s |" in text
    assert "| kill primary | 2 | 2 | 3.0 s | 30 s | n1 gone |" in text


def test_every_anomaly_is_counted(kept):
    campaign = replace(GOOD, ghosts=[replace(GHOSTS, false_acknowledgements=3)])
    numbers = {
        "seed": 1,
        **figures(campaign),
        "acknowledged_and_lost": ["c at n1: live"],
    }
    page.record(plans.campaign(10, FAULTS, ghosts=1), numbers, ["lost"])
    assert "| 1 | 672 | 4 | lost |" in kept.read_text()


@pytest.mark.parametrize("module", [page, simulation])
def test_the_page_in_the_tree_matches_its_numbers(module):
    """The page was not edited by hand, and was rewritten when its generator changed."""
    numbers = json.loads(module.PAGE.with_suffix(".json").read_text())
    assert module.PAGE.read_text() == module.page(numbers)


def test_short_or_partial_runs_are_not_recorded():
    assert plans.campaign(10, FAULTS, ghosts=1).recorded
    assert not plans.campaign(9, FAULTS, ghosts=1).recorded
    assert not plans.campaign(10, FAULTS[1:], ghosts=1).recorded

# SPDX-License-Identifier: Apache-2.0
"""Every planted bug applies to the tree. Also: what counts as finding one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.simulation import planted
from tests.simulation.campaign import (
    EVERY_FAULT_FROM_SEEDS,
    Campaign,
    Outcome,
    Verdict,
    whole_from_seeds,
)
from tests.simulation.comparisons import Comparison, Comparisons, comparisons_of
from tests.simulation.fault_effects import RARE, Effect, Effects, effects_of
from tests.simulation.hunt import broken_promises
from tests.simulation.kinds import Kind
from tests.simulation.patches import patched
from tests.simulation.planted import Bug, Finding

BUGS = planted.bugs()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.path.stem)
def test_a_planted_bug_applies_to_the_tree(bug: Bug) -> None:
    """Repair a patch together with the code that it changes: `make sim-planted`."""
    texts = patched(bug.path.read_text(), planted.ROOT)
    assert texts
    for path, text in texts.items():
        compile(text, path, "exec")  # Else the test that is to fail does not run.
    assert bug.title
    assert bug.why
    assert bug.seeds or (planted.ROOT / bug.test.partition("::")[0]).exists()
    assert bug.seeds or bug.no_seed


def test_there_are_enough_planted_bugs() -> None:
    assert len(BUGS) >= 60


def test_a_directed_test_runs_in_a_copy() -> None:
    """Modules that the tree's tests load first are in the copy too."""
    bug = next(bug for bug in BUGS if bug.test)
    with planted.copy_with(bug) as tree:
        done = planted.run_in(tree, "-m", "pytest", "-q", "--collect-only", bug.test)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("violations", "promises"),
    [
        ({"spent once": "code 1"}, ["spent once"]),
        ({"no exception": "TypeError", "spent once": "code 1"}, []),
        ({"no halt": "n1 stops", "progress": "n1 is down"}, []),
        ({"no halt": "n1 stops", "nothing lost": "r1"}, ["nothing lost"]),
        ({"progress": "no leader"}, ["progress"]),
    ],
)
def test_code_that_falls_over_is_not_found(
    violations: dict[str, str], promises: list[str]
) -> None:
    """Any bug that raises in each run would be found at once, and show nothing."""
    assert broken_promises(violations) == promises


def test_a_stop_counts_where_it_is_the_harm_of_a_bug() -> None:
    seen = {"no halt": "n1 stops", "progress": "n1 is down"}
    assert broken_promises(seen, stops=True) == ["no halt"]
    assert broken_promises({**seen, "no exception": "TypeError"}, stops=True) == []


def test_a_bug_is_judged_by_its_own_seeds_and_its_own_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is red elsewhere in the tree says nothing about it."""

    def found(title: str, seed: int | None = None, **more: Any) -> Finding:
        return Finding(Bug(Path(title), title, "", **more), "invariant: k", seed)

    files, outbox = {"files": "yes"}, {"outbox": "yes"}
    findings = [
        found("before the red seed", 6, options=files),
        found("at the red seed", 7, options=files),
        found("behind the red seed", 8, options=files),
        found("of another campaign", 8, options=outbox),
        found("whose test passes", test="green"),
        found("whose test fails", test="red"),
        found("that no seed has found", options=outbox),
    ]

    def run(self: Campaign, seeds: range) -> Outcome:
        red = {7: {"k": "seen"}, 8: {"k": "seen"}} if self.kind is Kind.FILES else {}
        return Outcome(violations={s: seen for s, seen in red.items() if s in seeds})

    monkeypatch.setattr(Campaign, "run", run)
    monkeypatch.setattr(planted, "passes", lambda test: test == "green")
    assert planted.green_without(findings) == {
        "before the red seed",
        "of another campaign",
        "whose test passes",
    }


EVERYTHING = Outcome(
    seeds=EVERY_FAULT_FROM_SEEDS,
    effects=Effects(dict.fromkeys(Effect, 1)),
    comparisons=Comparisons(dict.fromkeys(Comparison, 1)),
)


def test_a_campaign_in_which_everything_bit_and_was_looked_at_holds() -> None:
    assert Verdict(EVERYTHING, 1.0).holds
    assert Verdict(EVERYTHING, 1.0, kind=Kind.WHOLE).holds
    assert not Verdict(replace(EVERYTHING, violations={1: {"k": "seen"}}), 1.0).holds
    assert not Verdict(replace(EVERYTHING, seeds=0), 1.0).holds


@pytest.mark.parametrize(
    ("effect", "kind"),
    [
        (effect, kind)
        for kind in (Kind.ENGINES, Kind.WHOLE, Kind.FILES)
        for effect in effects_of(kind)
        if effect not in RARE
    ],
)
def test_a_campaign_in_which_a_fault_never_bit_has_failed(
    effect: Effect, kind: Kind
) -> None:
    """Each of them, changes of members too; of engines, whole nodes, and files."""
    most = replace(EVERYTHING, effects=EVERYTHING.effects - Effects({effect: 1}))
    failed = Verdict(most, 1.0, kind=kind)
    assert failed.absent_effects == [effect]
    assert not failed.holds
    fewer = replace(most, seeds=EVERY_FAULT_FROM_SEEDS - 1)
    assert Verdict(fewer, 1.0, kind=kind).holds


@pytest.mark.parametrize(
    ("effect", "kind"),
    [(effect, kind) for kind in (Kind.MIXED, Kind.LOST) for effect in effects_of(kind)],
)
def test_a_campaign_of_long_runs_in_which_one_never_bit_has_failed(
    effect: Effect, kind: Kind
) -> None:
    """As few seeds as go to the page are enough for what long runs are made for."""
    seeds = whole_from_seeds(kind)
    effects = EVERYTHING.effects - Effects({effect: 1})
    most = replace(EVERYTHING, seeds=seeds, effects=effects)
    verdict = Verdict(most, 1.0, kind=kind)
    assert verdict.absent_effects == ([effect] if effect.of_mixes else [])
    fewer = replace(most, seeds=seeds - 1)
    assert Verdict(fewer, 1.0, kind=kind).holds


@pytest.mark.parametrize("effect", Effect)
def test_every_fault_must_bite_in_some_campaign(effect: Effect) -> None:
    kinds = (Kind.FILES, Kind.MIXED, Kind.LOST)
    assert any(effect in effects_of(kind) for kind in kinds)


@pytest.mark.parametrize(
    ("comparison", "kind"),
    [
        (comparison, kind)
        for kind in (Kind.ENGINES, Kind.WHOLE)
        for comparison in comparisons_of(kind)
    ],
)
def test_a_campaign_in_which_a_check_had_nothing_to_compare_has_failed(
    comparison: Comparison, kind: Kind
) -> None:
    most = replace(
        EVERYTHING, comparisons=EVERYTHING.comparisons - Comparisons({comparison: 1})
    )
    failed = Verdict(most, 1.0, kind=kind)
    assert failed.absent_comparisons == [comparison]
    assert not failed.holds
    if kind is Kind.ENGINES:
        assert Verdict(most, 1.0, recording=True).holds == comparison.of_codes

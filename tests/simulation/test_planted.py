# SPDX-License-Identifier: Apache-2.0
"""The planted bugs fit the tree, and what counts as finding one."""

import pytest

from tests.simulation import planted
from tests.simulation.bites import Bite, Bites
from tests.simulation.campaign import EVERY_FAULT_FROM_SEEDS, Outcome, Verdict
from tests.simulation.hunt import broken_promises
from tests.simulation.planted import Bug

BUGS = planted.bugs()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.path.stem)
def test_a_planted_bug_applies_to_the_tree(bug: Bug) -> None:
    """Who changes the code that it breaks writes it anew: `make sim-planted`."""
    planted.apply(bug, planted.ROOT, check=True)
    assert bug.title
    assert bug.why
    assert bug.seeds or (planted.ROOT / bug.test.partition("::")[0]).exists()


def test_there_are_enough_planted_bugs() -> None:
    assert len(BUGS) >= 30


@pytest.mark.parametrize(
    ("violations", "found"),
    [
        ({"spent once": "code 1"}, ["spent once"]),
        ({"no exception": "TypeError", "spent once": "code 1"}, []),
        ({"no halt": "n1 stops", "progress": "n1 is down"}, []),
        ({"no halt": "n1 stops", "nothing lost": "r1"}, ["nothing lost"]),
        ({"progress": "no leader"}, ["progress"]),
    ],
)
def test_code_that_falls_over_is_not_found(
    violations: dict[str, str], found: list[str]
) -> None:
    """Any bug that raises in each run would be found at once, and show nothing."""
    assert broken_promises(violations) == found


def test_a_campaign_in_which_a_fault_never_bit_has_failed() -> None:
    everything = Bites(dict.fromkeys(Bite, 1))
    most = everything - Bites({Bite.BYTES_TORN: 1})
    seeds = EVERY_FAULT_FROM_SEEDS
    assert Verdict(Outcome(seeds=seeds, bites=everything), 1.0).holds
    failed = Verdict(Outcome(seeds=seeds, bites=most), 1.0)
    assert failed.never_bit == [Bite.BYTES_TORN]
    assert not failed.holds
    assert Verdict(Outcome(seeds=seeds - 1, bites=most), 1.0).holds

# SPDX-License-Identifier: Apache-2.0
"""The specification of replication, checked within small bounds; `make model` does all."""

import re

import pytest

from tests.model.__main__ import page
from tests.model.checker import MODULE, Setup, check, why_not_here
from tests.model.runs import BROKEN, SOUND

needs_java = pytest.mark.skipif(why_not_here() is not None, reason=str(why_not_here()))

QUICK = (
    "one vote in a term",
    "sync before acknowledging",
    "only conflicting entries are cut off",
    "lost journals are refused",
)
"""Found within seconds."""


def test_each_protection_of_the_specification_is_taken_out_in_a_run() -> None:
    named = set(re.findall(r'Kept\("([^"]+)"\)', MODULE.read_text()))
    assert named == set(BROKEN)
    assert SOUND


def test_sound_runs_leave_no_states_out() -> None:
    assert not any(setup.silent for setup in SOUND.values())


@pytest.mark.parametrize(
    ("violated", "title"),
    [(None, "no invariant is violated"), ("NoSplit", "an invariant is violated")],
)
def test_the_page_says_if_an_invariant_is_violated(
    violated: str | None, title: str
) -> None:
    run = {"name": "reads", "states": 9, "seconds": 1, "violated": violated}
    made = {"machine": "2 cores", "date": "today", "commit": "c0ffee"}
    assert f"in place: {title}" in page({"model": {"runs": [{**run, **made}]}})


@needs_java
def test_no_state_within_small_bounds_violates_an_invariant() -> None:
    outcome = check(Setup())
    assert outcome.violated is None
    assert outcome.states > 1000


@needs_java
@pytest.mark.parametrize("protection", QUICK)
def test_the_model_sees_a_missing_protection(protection: str) -> None:
    outcome = check(BROKEN[protection], broken=[protection])
    assert outcome.violated is not None, outcome.story

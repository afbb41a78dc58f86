# SPDX-License-Identifier: Apache-2.0
"""When `make faults` fails: a broken promise, or too little shown to tell."""

from dataclasses import replace

import pytest

from tests.faults.checker import Verdict
from tests.faults.disks import _missing
from tests.faults.ghosts import Ghosts
from tests.faults.history import Kind, Operation, Outcome, Result
from tests.faults.nemesis import Strike
from tests.faults.report import SECOND_NS, Campaign, Final, Span, failures, figures
from tests.faults.strikes import Proof

STRIKE = Strike(
    fault="kill_all",
    begin_ns=20 * SECOND_NS,
    end_ns=21 * SECOND_NS,
    ready_ns=24 * SECOND_NS,
    proof=Proof(bit=True, words="gone"),
    failure="",
)
GHOSTS = Ghosts(
    primary="n1",
    cut_s=2,
    dropped=80,
    acknowledged=0,
    refused=0,
    unknown=10,
    not_done=0,
    elsewhere=30,
    false_acknowledgements=0,
)


def reads(*, seconds: range, per_s: int, outcome: Outcome) -> list[Operation]:
    """Return so many reads in each of these seconds."""
    return [
        Operation(
            Kind.READ,
            f"code-{second}-{number}",
            "",
            "n1",
            second * SECOND_NS + number,
            second * SECOND_NS + SECOND_NS // per_s * number + SECOND_NS // per_s,
            outcome,
            Result.ABSENT if outcome is Outcome.ANSWERED else None,
        )
        for second in seconds
        for number in range(per_s)
    ]


GOOD = Campaign(
    span=Span(begin_ns=0, end_ns=60 * SECOND_NS),
    operations=[
        *reads(seconds=range(20), per_s=12, outcome=Outcome.ANSWERED),
        *reads(seconds=range(24, 60), per_s=12, outcome=Outcome.ANSWERED),
    ],
    verdict=Verdict(codes=672, double_spends=(), not_linearizable=()),
    final=Final(reads=3, digest="d1", lost=()),
    strikes=[STRIKE],
    ghosts=[GHOSTS],
    errors={},
    users=9,
    restarts=3,
    bugs=0,
    compactions=1,
    installed=1,
    load=(0.5, 2.5),
)


def why(campaign: Campaign) -> list[str]:
    return failures(campaign, figures(campaign))


def test_a_good_campaign_passes() -> None:
    """Nobody can be served without a quorum: that time does not count."""
    found = figures(GOOD)
    assert not failures(GOOD, found)
    assert found["successes_per_s_with_quorum"] == 12
    assert found["longest_without_success_s"] == pytest.approx(4, abs=0.1)
    assert found["longest_without_success_during"] == "kill_all"
    assert found["longest_without_success_with_quorum_s"] < 0.2


@pytest.mark.parametrize(
    ("campaign", "words"),
    [
        (
            replace(GOOD, verdict=Verdict(
                codes=1, double_spends=("c",), not_linearizable=()
            )),
            "1 double spends",
        ),
        (
            replace(GOOD, verdict=Verdict(
                codes=1, double_spends=(), not_linearizable=("c",)
            )),
            "1 codes with answers that no order explains",
        ),
        (
            replace(GOOD, final=Final(reads=3, digest="d1", lost=("c at n1: live",))),
            "1 acknowledged facts lost",
        ),
        (
            replace(GOOD, final=Final(reads=3, digest="", lost=())),
            "the nodes' states are not equal",
        ),
        (
            replace(GOOD, ghosts=[replace(GHOSTS, false_acknowledgements=10)]),
            "10 false acknowledgements",
        ),
        (
            replace(GOOD, strikes=[replace(STRIKE, failure="n1 was not ready")]),
            "kill_all: n1 was not ready",
        ),
        (
            replace(GOOD, strikes=[replace(STRIKE, proof=Proof(bit=False, words=""))]),
            "kill_all never bit",
        ),
        (replace(GOOD, compactions=0), "no log was compacted"),
        (replace(GOOD, bugs=2), "2 calls failed by a bug, see the nodes' logs"),
        (
            replace(GOOD, operations=reads(
                seconds=range(60), per_s=9, outcome=Outcome.ANSWERED
            )),
            "fewer than 10 successes a second",
        ),
        (
            replace(GOOD, operations=[
                *GOOD.operations,
                *reads(seconds=range(60), per_s=100, outcome=Outcome.NOT_DONE),
            ]),
            "less than 30% of the answers definite",
        ),
    ],
)  # fmt: skip
def test_a_campaign_fails_for_each_reason(campaign: Campaign, words: str) -> None:
    assert why(campaign) == [words]


def test_bytes_that_a_power_cut_took_are_counted() -> None:
    page = bytes(4096)
    assert _missing(b"abcdef", b"abc") == 3
    assert _missing(b"abc", b"abcdef") == 0
    assert _missing(b"abc", b"") == 3
    assert _missing(page + b"x" * 4096 + page, page + page + page) == 4096

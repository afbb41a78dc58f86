# SPDX-License-Identifier: Apache-2.0
"""`make faults` fails for a broken promise, or if it proves too little."""

from dataclasses import replace

import pytest

from tests.faults.checker import Verdict
from tests.faults.disks import _missing
from tests.faults.doors import ANY
from tests.faults.final_log import FinalLog
from tests.faults.ghosts import Ghosts
from tests.faults.history import Kind, Operation, Outcome, Result
from tests.faults.nemesis import Strike
from tests.faults.probes import Probes
from tests.faults.report import (
    SECOND_NS,
    Campaign,
    Final,
    Span,
    failures,
    figures,
    rolling_restarts,
    without_quorum,
)
from tests.faults.striker import Proof

STRIKE = Strike(
    fault="kill_all",
    begin_ns=20 * SECOND_NS,
    end_ns=21 * SECOND_NS,
    quorum_ns=24 * SECOND_NS,
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
    """Return *per_s* reads in each of these seconds."""
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


LOG = FinalLog(
    events=4000,
    sealed=8,
    fetched=3,
    archived=8,
    removed=5,
    committed=1500,
    arrived=1500,
    repeated=2,
    refused=1,
    dropped=0,
    filed=12_000,
    faults=(),
)
PROBES = Probes(calls=600, accepted=590, others=(), failed=10, gap_s=1.5, slowest_s=3)
GOOD = Campaign(
    span=Span(begin_ns=0, end_ns=60 * SECOND_NS),
    operations=[
        *reads(seconds=range(20), per_s=12, outcome=Outcome.ANSWERED),
        *reads(seconds=range(24, 60), per_s=12, outcome=Outcome.ANSWERED),
    ],
    verdict=Verdict(codes=672, double_spends=(), not_linearizable=()),
    final=Final(nodes=3, reads=3 * 672, digest="d1", lost=()),
    log=LOG,
    planned=("kill_all",),
    strikes=[STRIKE],
    ghosts=[GHOSTS],
    errors={},
    users=9,
    restarts=3,
    bugs=0,
    compactions=1,
    installed=1,
    probes=PROBES,
    load=(0.5, 2.5),
)


def test_a_node_that_comes_back_late_excuses_no_silence() -> None:
    """A majority serves before, so callers must be answered."""
    late = replace(STRIKE, ready_ns=50 * SECOND_NS)
    assert without_quorum([late]) == [(20 * SECOND_NS, 24 * SECOND_NS)]
    other = replace(late, fault="kill_replica")
    assert without_quorum([other]) == []


RESTART = replace(
    STRIKE,
    fault="rolling_restart",
    begin_ns=30 * SECOND_NS,
    end_ns=40 * SECOND_NS,
    quorum_ns=41 * SECOND_NS,
    ready_ns=41 * SECOND_NS,
)
ASKED = Operation(
    Kind.CONSUME,
    "code-31-0",
    "",
    ANY,
    31 * SECOND_NS,
    32 * SECOND_NS,
    Outcome.ANSWERED,
    Result.REFUSED,
)


def restarted(*operations: Operation) -> Campaign:
    """Return a campaign with a rolling restart and these calls of clients with all nodes."""
    return replace(
        GOOD,
        strikes=[STRIKE, RESTART],
        operations=[*GOOD.operations, *operations],
    )


def why(campaign: Campaign) -> list[str]:
    return failures(campaign, figures(campaign))


def test_a_good_campaign_passes() -> None:
    """Time without a quorum does not count."""
    numbers = figures(GOOD)
    assert not failures(GOOD, numbers)
    assert numbers["successes_per_s_with_quorum"] == 12
    assert numbers["longest_without_success_s"] == pytest.approx(4, abs=0.1)
    assert numbers["longest_without_success_during"] == "kill_all"
    assert numbers["longest_without_success_with_quorum_s"] < 0.2


@pytest.mark.parametrize(
    ("campaign", "words"),
    [
        (
            replace(GOOD, verdict=Verdict(
                codes=672, double_spends=("c",), not_linearizable=()
            )),
            "1 double spends",
        ),
        (
            replace(GOOD, verdict=Verdict(
                codes=672, double_spends=(), not_linearizable=("c",)
            )),
            "1 codes with answers that no order explains",
        ),
        (
            replace(GOOD, final=replace(GOOD.final, lost=("c at n1: live",))),
            "1 acknowledged facts lost",
        ),
        (
            replace(GOOD, final=replace(GOOD.final, digest="")),
            "the states of the nodes differ",
        ),
        (
            replace(GOOD, final=replace(GOOD.final, reads=2_015)),
            "2015 of 2016 final states were read",
        ),
        (
            replace(GOOD, ghosts=[GHOSTS, replace(GHOSTS, dropped=0)]),
            "a primary was not cut off: no packets dropped",
        ),
        (
            replace(GOOD, ghosts=[
                replace(GHOSTS, unknown=0), replace(GHOSTS, elsewhere=0)
            ]),
            "no change was in progress on a cut-off primary while others led",
        ),
        (
            replace(GOOD, planned=("kill_all", "full_disk", "delay")),
            "too short for delay, full_disk",
        ),
        (
            restarted(ASKED, replace(ASKED, outcome=Outcome.OPEN, unserved=True)),
            "1 calls failed after all retries in a rolling restart",
        ),
        (
            restarted(),
            "no client with all nodes made a call in a rolling restart",
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
            "kill_all never had an effect",
        ),
        (
            replace(GOOD, probes=replace(PROBES, gap_s=5.1)),
            "the prober got no answer for 5.1 s while a quorum existed",
        ),
        (replace(GOOD, compactions=0), "no log was compacted"),
        (
            replace(GOOD, log=replace(LOG, sealed=0)),
            "no segment of the audit log was sealed",
        ),
        (
            replace(GOOD, log=replace(LOG, faults=("3 events have not arrived",))),
            "3 events have not arrived",
        ),
        (replace(GOOD, bugs=2), "2 calls failed because of a bug: see the nodes' logs"),
        (
            replace(GOOD, operations=reads(
                seconds=range(60), per_s=9, outcome=Outcome.ANSWERED
            )),
            "fewer than 10 successes per second",
        ),
        (
            replace(GOOD, operations=[
                *GOOD.operations,
                *reads(seconds=range(60), per_s=100, outcome=Outcome.NOT_DONE),
            ]),
            "less than 30% of the operations were answered",
        ),
    ],
)  # fmt: skip
def test_a_campaign_fails_for_each_reason(campaign: Campaign, words: str) -> None:
    assert why(campaign) == [words]


def test_an_empty_campaign_fails() -> None:
    """Without operations, faults and reads there is nothing to pass."""
    nothing = replace(
        GOOD,
        operations=[],
        verdict=Verdict(codes=0, double_spends=(), not_linearizable=()),
        final=Final(nodes=3, reads=0, digest="d1", lost=()),
        strikes=[],
        ghosts=[],
        compactions=0,
    )
    assert why(nothing) == [
        "0 of 0 final states were read",
        "too short for kill_all",
        "no log was compacted",
        "fewer than 10 successes per second",
        "less than 30% of the operations were answered",
    ]


def test_clients_of_one_node_may_notice_its_restart() -> None:
    """Only clients with all nodes count, because they can try another node."""
    one = replace(ASKED, node="n1", outcome=Outcome.OPEN, unserved=True)
    campaign = restarted(ASKED, one)
    numbers = figures(campaign)
    assert not failures(campaign, numbers)
    assert rolling_restarts(numbers) == (
        "1; of 1 calls by clients that know all nodes, 0 failed after all retries"
    )


def test_bytes_lost_in_a_power_cut_are_counted() -> None:
    page = bytes(4096)
    assert _missing(b"abcdef", b"abc") == 3
    assert _missing(b"abc", b"abcdef") == 0
    assert _missing(b"abc", b"") == 3
    assert _missing(page + b"x" * 4096 + page, page + page + page) == 4096

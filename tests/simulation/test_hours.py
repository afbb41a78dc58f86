# SPDX-License-Identifier: Apache-2.0
"""A night of simulation runs new seeds of each kind in turns, until it is over."""

from collections.abc import Iterator

from tests.simulation.campaign import Campaign
from tests.simulation.groups.campaign import GroupsCampaign
from tests.simulation.hours import KINDS, again, rounds


def test_each_kind_has_its_turn_and_no_seed_comes_twice() -> None:
    left: Iterator[bool] = iter([True, True, True, False])
    kinds = {"one": Campaign(recording=True), "other": GroupsCampaign()}
    seen = [
        (name, list(batch), outcome.violations)
        for name, batch, outcome in rounds(kinds, 40, 2, lambda: next(left))
    ]
    assert seen == [
        ("one", [40, 41], {}),
        ("other", [40, 41], {}),
        ("one", [42, 43], {}),
    ]


def test_a_seed_can_be_run_again_by_a_command() -> None:
    assert again("sim-nodes NODES=5", 7) == "make sim-nodes NODES=5 SEED=7"
    assert again("sim-groups", 7) == "make sim-groups SEEDS=1 FIRST=7"
    assert {name.split()[0] for name in KINDS} == {
        "sim",
        "sim-disks",
        "sim-groups",
        "sim-lost",
        "sim-mixed",
        "sim-nodes",
        "sim-outbox",
    }

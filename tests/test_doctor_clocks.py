# SPDX-License-Identifier: Apache-2.0
"""The doctor tells whose clock is wrong: a member's, or this machine's."""

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.tool.doctor.findings import Verdict
from sparecode_node.tool.doctor.machine import check_clocks

OWN = "all others agree: this machine's clock is the wrong one, by "


def failures(**offsets_s: float) -> list[str]:
    found = check_clocks({NodeId(name): off_s for name, off_s in offsets_s.items()})
    return [each.words for each in found if each.verdict is Verdict.FAIL]


@pytest.mark.parametrize(("off_s", "by"), [(-10.0, "+10.0 s"), (7.5, "-7.5 s")])
def test_others_that_agree_show_that_this_clock_is_wrong(off_s: float, by: str) -> None:
    first, second, own = failures(n2=off_s, n3=off_s + 0.2)
    assert first.startswith("n2 answers")
    assert second.startswith("n3 answers")
    assert own.startswith(OWN)
    assert by[0] == own.removeprefix(OWN)[0]
    assert "docs/runbooks/wrong-clock.md" in own


@pytest.mark.parametrize(
    "offsets_s",
    [
        pytest.param({"n2": -10.0}, id="one other"),
        pytest.param({"n2": -10.0, "n3": 0.0}, id="one wrong"),
        pytest.param({"n2": -10.0, "n3": 10.0}, id="both wrong"),
        pytest.param({"n2": 0.0, "n3": 0.1}, id="all right"),
        pytest.param({}, id="nobody answers"),
    ],
)
def test_others_that_disagree_do_not_blame_this_clock(
    offsets_s: dict[str, float],
) -> None:
    assert not [each for each in failures(**offsets_s) if each.startswith(OWN)]

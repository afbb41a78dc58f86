# SPDX-License-Identifier: Apache-2.0
"""A move is measured on real nodes, and what its users see of it counts."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sparecode.v1 import authentication_pb2
from tests.bench import move
from tests.bench.harness import Bench
from tests.bench.move import STEPS, Move
from tests.bench.moving_users import SignIn, ask, pause_s
from tests.bench.report import Report


def bench(tmp_path: Path) -> Bench:
    report = Report(path=tmp_path / "move.json", command="make bench-move MOVED=8")
    return Bench(report, None, 1, Console(file=io.StringIO()))  # type: ignore[arg-type]


def sign_in(began: float, cluster: str = "", answer: str = "SLOT_MOVING") -> SignIn:
    answers = () if cluster == "source" else (answer,)
    return SignIn(began=began, ended=began + 0.5, cluster=cluster, answers=answers)


SEEN = [
    sign_in(1, "source"),
    sign_in(2),
    sign_in(3, "source"),
    *(sign_in(4), sign_in(5)),
    sign_in(8, "target"),
    sign_in(10, "target"),
]


def moved(*more: SignIn) -> Move:
    return Move(
        users=2000,
        codes=21_000,
        pieces=200,
        pause_s=4.5,
        steps=dict.fromkeys(STEPS, 1.0),
        end_s=0.5,
        sign_ins=[*SEEN, *more],
        activated_at=9,
    )


def test_the_pause_is_from_the_last_old_answer_to_the_first_new_one() -> None:
    assert pause_s(SEEN) == 4.5
    with pytest.raises(RuntimeError, match="2 in the source, 0 after"):
        pause_s(SEEN[:4])
    with pytest.raises(RuntimeError, match="0 in the source"):
        pause_s(SEEN[5:])


def test_an_attempt_refused_after_the_move_misses_its_bound(tmp_path: Path) -> None:
    measuring = bench(tmp_path)
    move.report(measuring, [moved()])
    move.report(measuring, [moved(), moved(sign_in(9.1, answer="UNAVAILABLE"))])
    assert [each.holds for each in measuring.report.targets] == [True, False]
    last = measuring.report.results[-1]
    assert last["refused"] == 4
    assert last["their_answers"] == {"SLOT_MOVING": 3, "UNAVAILABLE": 1}


def test_the_page_shows_how_a_pause_is_divided(tmp_path: Path) -> None:
    measuring = bench(tmp_path)
    moves = [moved(), moved(sign_in(9.1))]
    move.report(measuring, moves)
    shown = "\n".join(move.table(measuring.report, moves))
    assert "by `make bench-move MOVED=8`, commit " in shown
    assert "| users | 2,000 | 2,000; 2,000 |" in shown
    assert "| pieces of the export | 200 | 200; 200 |" in shown
    assert "| pause, s | 4.5 | 4.5; 4.5 |" in shown
    for name in STEPS:
        assert f"| the command to {name}, s | 1.0 | 1.0; 1.0 |" in shown
    assert "| of them refused | 4 | 3; 4 |" in shown


def test_a_decision_against_a_right_passcode_ends_the_measurement() -> None:
    """Such a user would have been locked out by the move, and not paused."""

    def answer(decision: Any) -> bytes:
        return authentication_pb2.AuthenticateResponse(
            decision=decision
        ).SerializeToString()

    accepted = answer(authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED)
    refused = answer(authentication_pb2.AUTHENTICATION_DECISION_REFUSED)
    assert ask(lambda _: accepted, b"") == ""
    with pytest.raises(ValueError, match="a right passcode was refused"):
        ask(lambda _: refused, b"")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_users_of_real_clusters_are_paused_and_go_on(tmp_path: Path) -> None:
    measuring = bench(tmp_path)
    (seen,) = move.measure(measuring, tmp_path, moved=120, rounds=1, nodes=1)
    assert [each.holds for each in measuring.report.targets] == [True] * 3
    assert 60 < seen.users < 180
    assert seen.pieces > 1
    assert 0 < seen.pause_s < sum(seen.steps.values()) + 1
    assert seen.refused > 0
    assert {each.answers for each in seen.sign_ins if not each.cluster} == {
        ("SLOT_MOVING", "SLOT_MOVING")
    }
    later = [each for each in seen.sign_ins if each.began > seen.activated_at]
    assert {each.cluster for each in later} == {"target"}
    assert min(seen.steps.values()) > 0

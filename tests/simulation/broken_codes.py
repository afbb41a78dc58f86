# SPDX-License-Identifier: Apache-2.0
"""The same, of the codes."""

import contextlib
import random
import sqlite3
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.ids import Moment, TokenSerial, UserId
from sparecode_node.statemachine import sealed_events
from sparecode_node.statemachine.results import (
    Applied,
    Authenticated,
    Decision,
    EmergencyAccessSaved,
)
from tests.simulation.archives import Archives
from tests.simulation.broken_runs import breaks, machine
from tests.simulation.invariants import Invariants, Submission
from tests.simulation.people import (
    AGENT,
    FOUNDING,
    GUESSED,
    HURRIED,
    OTHER_AGENT,
    REISSUED,
    Answer,
    IssuedSet,
    Try,
    call_of,
    enrollment,
    open_session,
)
from tests.simulation.rules import Accepted, CodeRules, Reference


def tried(
    wanted: Try | Answer,
    request_id: str = "r",
    *,
    decision: Decision = Decision.ACCEPTED,
    index: int = 5,
    about: str = "",
) -> tuple[Submission, Authenticated]:
    """Return a try, and what it was answered."""
    made = call_of(wanted.command(1), request_id, content=f"{wanted}")
    calls = Submission(request_id, f"n1.1.{request_id}", 10.0, made)
    report = about or wanted.command(1).authentication_id
    return calls, Authenticated(
        index=index, decision=decision, authentication_id=report
    )


ADA = IssuedSet("ada", 1, 3)
CODE = Try("ada", ADA.set_id, 1)


def answered(*answers: tuple[Submission, Any]) -> CodeRules:
    rules = CodeRules()
    for calls, outcome in answers:
        rules.on_outcome(calls, outcome)
    return rules


CHALLENGE = Challenge(
    challenge_id="hal step 10",
    step=NextStep.NEW_PIN,
    agent=AGENT,
    user_id=UserId("hal"),
    auth_version=1,
    serial=TokenSerial("hal"),
    moment=Moment(10),
    ends_at_ms=120_000,
)


@breaks("a challenge is answered once")
def a_challenge_that_is_answered_after_a_wrong_answer() -> Invariants:
    made = CodeRules()
    answers = [("refused", "wrong_passcode"), ("refused", "locked"), ("accepted", "")]
    who, about = ("agent:vpn", "n1"), "token hal, challenge hal step 10"
    made.check_challenges(
        [
            (n, 0, *who, "ContinueAuthentication", "hal", *answer, about, b"")
            for n, answer in enumerate(answers)
        ]
    )
    return made


@breaks("a challenge of its agent")
def a_challenge_that_another_agent_answers() -> Invariants:
    return answered(tried(Answer(CHALLENGE, 11, OTHER_AGENT)))


@breaks("a whole audit log")
def a_machine_without_an_event() -> Invariants:
    made = CodeRules()
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(sealed_events._TABLES)
        made.check_audit_log("n1", db, [(1, "CreateUser")])
    return made


def archives_of(rules: CodeRules) -> Archives:
    return Archives(random.Random(0), rules, lambda: None, lambda *_: None)


@breaks("archived before it is removed")
def a_segment_removed_with_one_archive() -> Invariants:
    made = CodeRules()
    archives = archives_of(made)
    archives.read_back[1].add("n1")
    archives.see_removed(1)
    return made


@breaks("a whole archive")
def removed_events_that_no_archive_has() -> Invariants:
    made = CodeRules()
    archives_of(made).check([(1, "CreateUser")], 1)
    return made


@breaks("spent once")
def a_code_spent_twice() -> Invariants:
    return answered(tried(CODE, "r"), tried(CODE, "s", index=6))


@breaks("one answer")
def a_request_answered_with_a_question() -> Invariants:
    calls, outcome = tried(CODE)
    return answered(tried(CODE), (calls, replace(outcome, challenge=CHALLENGE)))


@breaks("one answer")
def a_request_answered_otherwise() -> Invariants:
    rules = answered(tried(CODE), tried(CODE, decision=Decision.REFUSED))
    rules.check_repeats(log_again({}, NO_TIMES))
    return rules


@breaks("an answer of its own")
def an_answer_about_another() -> Invariants:
    return answered(tried(CODE, about="ben"))


@breaks("an answer of its kind")
def an_answer_of_another_kind() -> Invariants:
    return answered((tried(CODE)[0], Applied(index=5)))


@breaks("no guess is right")
def a_guess_that_is_right() -> Invariants:
    guess = Try(GUESSED, IssuedSet(GUESSED, 1, 0).set_id, 1003)
    return answered(tried(guess))


def log_again(saved: dict[int, str], times_ms: dict[int, int]) -> Reference:
    """Return what a machine that never failed makes of a log: sets, and times."""
    result: Any = SimpleNamespace(times_ms=times_ms, last_index=9, digest="d")
    result.misnamed = frozenset()
    result.results = {
        index: (
            EmergencyAccessSaved(
                index=index,
                at_ms=0,
                set_id=set_id,
                codes=3,
                live_codes=3,
                voided_codes=0,
                ends_at_ms=None,
                pin_missing_warning=False,
            ),
        )
        for index, set_id in saved.items()
    }
    return result  # type: ignore[no-any-return]


def used(sets: list[IssuedSet], index: int, reference: Reference) -> CodeRules:
    """Record that the first code of the first set was accepted at an index."""
    rules = CodeRules(sets={each.set_id: each for each in sets})
    one = Accepted("r", f"{sets[0].set_id}/1", sets[0].set_id, index)
    rules.accepted[one.what]["r"] = one
    rules._check_accepted(reference)
    return rules


NO_TIMES = dict.fromkeys(range(10), 0)


@breaks("only issued codes")
def a_code_of_no_set() -> Invariants:
    return used([ADA], 5, log_again({}, NO_TIMES))


@breaks("only issued codes")
def a_code_before_its_set() -> Invariants:
    return used([ADA], 5, log_again({6: ADA.set_id}, NO_TIMES))


@breaks("no void code")
def a_code_of_an_older_set() -> Invariants:
    sets = [IssuedSet(REISSUED, 1, 3), IssuedSet(REISSUED, 2, 3)]
    return used(sets, 5, log_again({3: sets[0].set_id, 4: sets[1].set_id}, NO_TIMES))


@breaks("no code after its end")
def a_code_that_has_ended() -> Invariants:
    hurried = IssuedSet(HURRIED, 1, 3, lifetime_ms=100)
    times_ms = {**NO_TIMES, 3: 1000, 5: 1100}
    return used([hurried], 5, log_again({3: hurried.set_id}, times_ms))


@breaks("nothing lost")
def acknowledged_and_not_in_the_log() -> Invariants:
    rules = answered(tried(CODE))
    rules._check_done(log_again({}, NO_TIMES))
    return rules


@breaks("nothing lost")
def a_node_that_ends_before_what_was_acknowledged() -> Invariants:
    rules = answered(tried(CODE, index=5))
    rules._check_places([machine("n1", {"r": 4})], log_again({}, NO_TIMES))
    return rules


@breaks("equal digests")
def another_state_than_the_log_makes() -> Invariants:
    rules = CodeRules()
    rules._check_places([machine("n1", {"r": 9}, "other")], log_again({}, NO_TIMES))
    return rules


@breaks("exactly once")
def decided_twice_while_it_is_remembered() -> Invariants:
    rules = CodeRules()
    rules.done["agent", "Authenticate", "r"] = {5, 6}
    key: Any = SimpleNamespace(caller="agent", method="Authenticate", request_id="r")
    entry: Any = (SimpleNamespace(request=key),)
    rules.applied.update({5: entry, 6: entry})
    rules._check_done(log_again({}, NO_TIMES))
    return rules


@breaks("older members can read the log")
def an_entry_in_words_of_a_newer_release() -> Invariants:
    rules = CodeRules()
    calls = (
        call_of(replace(FOUNDING, feature_level=1), "founding", content=""),
        call_of(open_session("open"), "session", content=""),
        call_of(enrollment("ada"), "token", content="", session="open"),
    )
    for index, call in enumerate(calls, 1):
        rules.applied[index] = (call.stamped(index),)
    rules.check_states([])
    return rules


@breaks("no exception")
def a_log_that_cannot_be_applied_again() -> Invariants:
    rules = CodeRules()
    bad: Any = (SimpleNamespace(at_ms=0),)
    rules.applied[1] = bad
    rules.check_states([])
    return rules

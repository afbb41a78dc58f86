# SPDX-License-Identifier: Apache-2.0
"""
`FakeCluster` decides as a node does: one script gets the same verdicts from both.

The script draws its steps from a seed, so both get the same ones until a verdict differs.
It depends on no clock: the first failure locks a factor until an administrator unlocks
it, and all tokens but one count (HOTP). The token that shows the time is used first, and
only then, so that a slow machine gets the same verdicts.
"""

import itertools
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

import pytest
from local_cluster.cluster import ADMINISTRATOR, AGENT
from local_cluster.setup import set_up

from sparecode_client import (
    Admin,
    Agent,
    Authentication,
    IssuedTokencodes,
    NewToken,
    PinRule,
    RecoveryPolicy,
    SparecodeError,
    TokenAlgorithm,
)
from sparecode_client.testing import FakeCluster
from sparecode_node.domain.ids import Moment
from sparecode_node.domain.tokencodes import (
    Algorithm,
    HashName,
    TokencodeParameters,
    step_at,
    tokencode_at,
)
from tests.system.estate import PATIENCE

PIN = "4719"
PINS = (PIN, PIN, PIN, PIN, "8265", "")
TIMED = "tim"
"""The user whose token shows the time; all others have one that counts."""
USERS = {"ada": PIN, "ben": PIN, "cyd": "", "dot": PIN, TIMED: ""}
"""Each user's PIN; empty: the token needs none."""
UNTIMED = tuple(user for user in USERS if user != TIMED)
STEPS = 300
WINDOW_STEPS = 3
LOOK_AHEAD = 50
PERIOD = timedelta(minutes=1)
TOTP = TokencodeParameters(
    algorithm=Algorithm.TOTP,
    hash_name=HashName.SHA1,
    digits=6,
    period_s=int(PERIOD.total_seconds()),
)
HOTP = replace(TOTP, algorithm=Algorithm.HOTP, period_s=0)


@dataclass
class Attempt:
    """A passcode with the request id that it was sent with."""

    passcode: str
    request_id: str
    answer: Authentication | None = None


@dataclass
class Script:
    """What a help desk, an agent and its users do, in an order that a seed gives."""

    admin: Admin
    agent: Agent
    random: random.Random
    began: Moment = field(
        default_factory=lambda: step_at(time.time_ns() // 10**6, TOTP)
    )
    codes: dict[str, list[str]] = field(default_factory=lambda: {u: [] for u in USERS})
    shown: dict[str, int] = field(default_factory=lambda: dict.fromkeys(USERS, -1))
    """The counter of the last tokencode of each user's token."""
    attempts: dict[str, Attempt] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)
    """The ids of all decisions, in their order."""

    def run(self) -> list[str]:
        """Return the verdict on each step, then the recorded reason of each decision."""
        self._set_policy()
        for user, pin in USERS.items():
            self._add_user(user, pin)
        steps: list[Callable[[str], object]] = [
            *(14 * [self.sign_in]),
            *(4 * [self.issue, self.unlock]),
            *(2 * [self.repeat, self.resume]),
            *(3 * [self.enable_token, self.enable_user]),
            *(6 * [self.open_agent]),
            *(self.repeat_otherwise, self.issue_fixed, self.turn_off),
            *(self.disable_token, self.disable_user, self.reinstate),
            *(self.clear_pin, self.set_pin, self.restrict_agent, self.disable_agent),
        ]
        first: list[tuple[Callable[[str], object], str]] = [
            # While the tokencodes of this minute are valid.
            *((step, TIMED) for step in (self.show, self.repeat, self.type_again)),
            *((step, TIMED) for step in (self.show, self.unlock, self.show)),
            *((step, "dot") for step in (self.clear_pin, self.show, self.resume)),
            *((self.issue, user) for user in UNTIMED),
        ]
        drawn = (
            (self.random.choice(steps), self.random.choice(UNTIMED))
            for _ in range(STEPS - len(first))
        )
        return [
            *(
                f"{number} {step.__name__} {user}: {verdict_of(partial(step, user))}"
                for number, (step, user) in enumerate(itertools.chain(first, drawn))
            ),
            *self._recorded(),
        ]

    def _set_policy(self) -> None:
        policy = self.admin.get_policy()
        changed = replace(
            policy,
            lock_from_failures=1,
            totp_window_steps=WINDOW_STEPS,
            hotp_look_ahead=LOOK_AHEAD,
        )
        self.admin.update_policy(changed)

    def _add_user(self, user: str, pin: str) -> None:
        self.admin.create_user(user)
        serial = self.serial(user)
        timed = user == TIMED
        token = NewToken(
            serial=serial,
            seed=seed_of(user),
            algorithm=TokenAlgorithm.TOTP if timed else TokenAlgorithm.HOTP,
            period=PERIOD if timed else None,
            pin_rule=PinRule.PREPENDED if pin else PinRule.NONE,
        )
        self.admin.enroll_token(token)
        self.admin.assign_token(serial, user)
        if pin:
            self.admin.set_pin(serial, pin)

    def serial(self, user: str) -> str:
        return str(tuple(USERS).index(user)).zfill(12)

    def _recorded(self) -> list[str]:
        """Return what the audit log says of each decision."""
        reasons: dict[str, list[str]] = {}
        page_token = ""
        while True:
            page = self.admin.list_audit_events(page_token=page_token)
            for event in page.items:
                reasons.setdefault(event.authentication_id, []).append(
                    f"{event.action} {event.outcome} {event.reason}"
                )
            page_token = page.next_page_token
            if not page_token:
                return [" & ".join(reasons[each]) for each in self.decisions]

    # --- What users type

    def tokencode(self, user: str) -> str:
        """Return the tokencode that the user's token shows next."""
        self.shown[user] += 1
        if user == TIMED:
            moment = Moment(self.began + self.shown[user])
            return tokencode_at(seed_of(user), TOTP, moment)
        return tokencode_at(seed_of(user), HOTP, Moment(self.shown[user]))

    def _request_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def _passcode(self, user: str) -> str:
        pin = self.random.choice(PINS) if USERS[user] else ""
        codes = [*self.codes[user], *self.codes[user][-3:], "222222", "ZZZZ-2222"]
        kind = self.random.random()
        return pin + (self.tokencode(user) if kind < 0.2 else self.random.choice(codes))

    def _decided(self, attempt: Attempt, answer: Authentication) -> Authentication:
        attempt.answer = answer
        if answer.authentication_id not in self.decisions:
            self.decisions.append(answer.authentication_id)
        return answer

    def sign_in(self, user: str) -> Authentication:
        return self._sign_in(user, self._passcode(user))

    def show(self, user: str) -> Authentication:
        """Sign in with a tokencode alone."""
        return self._sign_in(user, self.tokencode(user))

    def type_again(self, user: str) -> Authentication:
        """Sign in with the last passcode, as a request of its own."""
        return self._sign_in(user, self.attempts[user].passcode)

    def _sign_in(self, user: str, passcode: str) -> Authentication:
        attempt = Attempt(passcode, self._request_id())
        self.attempts[user] = attempt
        answer = self.agent.authenticate(
            user, attempt.passcode, request_id=attempt.request_id
        )
        return self._decided(attempt, answer)

    def repeat(self, user: str) -> object:
        """Send the last passcode again, as after a lost answer."""
        if (attempt := self.attempts.get(user)) is None:
            return "nothing to repeat"
        answer = self.agent.authenticate(
            user, attempt.passcode, request_id=attempt.request_id
        )
        return self._decided(attempt, answer)

    def repeat_otherwise(self, user: str) -> object:
        """Send another passcode with the request id of the last one."""
        if (attempt := self.attempts.get(user)) is None:
            return "nothing to repeat"
        return self.agent.authenticate(
            user, f"{attempt.passcode}9", request_id=attempt.request_id
        )

    def resume(self, user: str) -> object:
        """Take the next step that a decision requires."""
        attempt = self.attempts.get(user)
        if attempt is None or attempt.answer is None or not attempt.answer.next_step:
            return "no next step"
        answer = self.agent.continue_authentication(
            attempt.answer,
            self.tokencode(user),
            new_pin=PIN,
            request_id=self._request_id(),
        )
        return self._decided(attempt, answer)

    # --- What the help desk does

    def issue(self, user: str) -> IssuedTokencodes:
        issued = self.admin.issue_tokencodes(
            self.serial(user),
            count=self.random.randint(1, 4),
            lifetime=timedelta(days=1),
            recovery_policy=self.random.choice(tuple(RecoveryPolicy)),
            keep_unused_codes=self.random.random() < 0.3,
        )
        self.codes[user] += [each.code for each in issued.codes]
        return issued

    def issue_fixed(self, user: str) -> object:
        issued = self.admin.issue_fixed_tokencode(self.serial(user))
        self.codes[user].append(issued.code)
        return issued.saved.voided_codes

    def turn_off(self, user: str) -> object:
        back = self.random.random() < 0.5
        return self.admin.disable_emergency_access(
            self.serial(user), reinstate_token=back
        )

    def reinstate(self, user: str) -> object:
        return self.admin.reinstate_token(self.serial(user))

    def unlock(self, user: str) -> object:
        return self.admin.unlock_user(user)

    def disable_token(self, user: str) -> object:
        return self.admin.disable_token(self.serial(user))

    def enable_token(self, user: str) -> object:
        return self.admin.enable_token(self.serial(user))

    def disable_user(self, user: str) -> object:
        return self.admin.update_user(user, enabled=False)

    def enable_user(self, user: str) -> object:
        return self.admin.update_user(user, enabled=True)

    def clear_pin(self, user: str) -> object:
        return self.admin.clear_pin(self.serial(user))

    def set_pin(self, user: str) -> object:
        return self.admin.set_pin(self.serial(user), PIN)

    def restrict_agent(self, user: str) -> object:
        """Let the agent admit this user, and only those it has been told to."""
        return self.admin.update_agent(AGENT, restricted=True, add_usernames=[user])

    def open_agent(self, _user: str) -> object:
        return self.admin.update_agent(AGENT, restricted=False, enabled=True)

    def disable_agent(self, _user: str) -> object:
        return self.admin.update_agent(AGENT, enabled=False)


def seed_of(user: str) -> bytes:
    return user.encode().ljust(20, b".")


def verdict_of(step: Callable[[], object]) -> str:
    """Return what the caller learns of a step, without ids, times and codes."""
    try:
        answer = step()
    except SparecodeError as error:
        return f"{type(error).__name__} {error.reason}"
    match answer:
        case Authentication():
            return answer.decision.name
        case IssuedTokencodes(saved=saved):
            return f"{saved.codes} codes, {saved.live_codes} live, {saved.voided_codes} void"
        case str() | int():
            return str(answer)
    return "done"


@dataclass
class Process:
    """A node in a process of its own, and clients of it."""

    admin: Admin
    agent: Agent


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    cluster = set_up(tmp_path_factory.mktemp("node"), nodes=1, testing=True)
    (node,) = cluster.nodes
    files = cluster.certificates
    try:
        cluster.start()
        with (
            Admin(
                [node.admin_address], ca=cluster.members_ca, timeout=PATIENCE
            ) as admin,
            Agent(
                [node.agents_address],
                ca=cluster.members_ca,
                certificate=files / f"{AGENT}.pem",
                key=files / f"{AGENT}.key",
                timeout=PATIENCE,
            ) as agent,
        ):
            admin.login(ADMINISTRATOR, cluster.password)
            admin.confirm_with(lambda _code: cluster.password)
            admin.register_agent(AGENT, f"sparecode://agent/{AGENT}")
            yield Process(admin=admin, agent=agent)
    finally:
        cluster.kill()


def test_the_same_script_has_the_same_verdicts_on_a_node(process: Process) -> None:
    """
    Every answer and every recorded reason is the same (A1-A5, L1, R1-R3, Q1).

    The seed is one whose script meets all of the kinds of verdicts below.
    """
    seed = 12
    real = Script(process.admin, process.agent, random.Random(seed)).run()
    with FakeCluster() as cluster:
        agent = cluster.agent(AGENT)
        fake = Script(cluster.admin(), agent, random.Random(seed)).run()

    assert fake == real
    text = "\n".join(real)
    for words in (
        *(": ACCEPTED", ": REFUSED", ": NEW_PIN_REQUIRED", " codes, "),
        *("REQUEST_ID_REUSED", "RECOVERED_TOKEN_ACCEPTED", "PIN_CHOSEN"),
        *("wrong_passcode", "wrong_pin", "code_not_live", "tokencode_spent", "locked"),
        *("user_disabled", "user_not_allowed", "token_disabled", "agent_disabled"),
    ):
        assert words in text, text

# SPDX-License-Identifier: Apache-2.0
"""
Users who sign in with tokens, and what their tokens show.

Some share a slot with another user, and most have a neighbor in the next slot, so that
a move of a range takes several users. A passcode is a moment: the time step of a TOTP
token, or the counter of an HOTP token. A cluster accepts each moment once, and then no
earlier one (K1).
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sparecode_node.domain.challenges import CHALLENGE_MS, Challenge
from sparecode_node.domain.ids import NameKey, TokenSerial, UserId
from sparecode_node.domain.passcodes import Moment
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokencodes import Algorithm, moments_after
from sparecode_node.domain.tokens import Token
from sparecode_node.services.state.tokencode_search import near_moments, wide_moments
from sparecode_node.statemachine.commands import Command
from sparecode_node.statemachine.commands.authentication import (
    Authenticate,
    ContinueAuthentication,
)
from sparecode_node.statemachine.commands.tokens import AssignToken, ResynchronizeToken
from sparecode_node.statemachine.commands.users import CreateUser
from tests.simulation.people import KEY, Answer, Try, enrollment

PERIOD_S: Final = 2
"""A time step: half a minute, scaled to a run."""
BEGAN_MS: Final = 1_800_000_000_000
TOKEN_USERS: Final[Mapping[str, Algorithm]] = {
    "leo": Algorithm.TOTP,  # in the slot after eve's
    "eric-o": Algorithm.HOTP,  # in the slot of leo
    "rex-k": Algorithm.HOTP,  # in the slot after ada's
    "leon-c": Algorithm.TOTP,  # two slots before ada's
    "arno-v": Algorithm.TOTP,  # in the slot of gus
    "alma-y": Algorithm.HOTP,  # in the slot after
}
USERS_BY_TIME: Final = tuple(
    user for user, algorithm in TOKEN_USERS.items() if algorithm is Algorithm.TOTP
)
AHEAD_MAX: Final = 8
"""Time steps by which the clock of a TOTP token is ahead, at most."""
RESYNCHRONIZED_STEPS: Final = AHEAD_MAX + 2
"""The window of resynchronization: so a token is learned wherever its clock is."""
DRIFT_GROWTH: Final = RESYNCHRONIZED_STEPS + 1
"""Time steps that one resynchronization moves a drift forward, at most."""
DOUBTED_S: Final = PERIOD_S * (DRIFT_GROWTH + 3)
"""The time after an opening for which one passcode is not enough."""
UNUSED_MAX: Final = 4
"""Counters that a person goes ahead of the last accepted one: fewer than the look-ahead."""
REPEATED: Final = 5
"""The newest passcodes of a token, of which people and thieves repeat some."""


def at_ms(now_s: float) -> int:
    """Return the time of the clusters."""
    return BEGAN_MS + int(now_s * 1000)


def step_now(now_s: float) -> int:
    """Return the time step that a TOTP token shows."""
    return at_ms(now_s) // (1000 * PERIOD_S)


@dataclass(frozen=True)
class TokencodeTry(Try):
    """An attempt with the passcode of a token."""

    @property
    def what(self) -> str:
        return f"{self.user} at {self.moment}"

    def seen_by(self, attempt: Authenticate, near: Sequence[int]) -> Authenticate:
        """Return the command as a primary stamps it: no match outside its window."""
        if self.moment in near:
            return attempt
        bare = tuple(replace(each, tokencodes=()) for each in attempt.readings)
        return replace(attempt, readings=bare)


@dataclass(frozen=True)
class NextTry(TokencodeTry):
    """The next passcode of a token, as an answer to a challenge."""

    challenge: Challenge | None = None
    cluster_id: str = ""
    """Of the cluster that the challenge is sealed for: a restored one has another id."""

    def answer(
        self, token: Token | None, auth_version: int, cluster_id: str
    ) -> ContinueAuthentication:
        """Return the command, as a node of this cluster and its primary make it."""
        assert self.challenge is not None
        answer = Answer(self.challenge, self.moment).command(auth_version)
        answer = replace(answer, pin_verifier=b"")
        if cluster_id != self.cluster_id:  # It does not open.
            return replace(
                answer, challenge=None, user_id=UserId(""), auth_version=0, moments=()
            )
        if token is None:
            return replace(answer, user_id=UserId(""), moments=())
        following = moments_after(
            token.parameters, self.challenge.moment, within_ms=CHALLENGE_MS
        )
        return answer if self.moment in following else replace(answer, moments=())


def person(name: str) -> list[Command]:
    """Return what creates a user with a token and no emergency codes."""
    token = enrollment(name)
    if TOKEN_USERS[name] is Algorithm.HOTP:
        token = replace(token, algorithm=Algorithm.HOTP, period_s=0)
    else:
        token = replace(token, period_s=PERIOD_S)
    user = CreateUser(
        user_id=UserId(name),
        username=name,
        name_key=NameKey(name),
        name_tag=name.encode(),
        display_name=name.capitalize(),
        email="",
        pin_salt=b"p",
        code_salt=b"c",
        key_id=KEY,
    )
    assignment = AssignToken(serial=TokenSerial(name), name_key=NameKey(name))
    return [user, token, assignment]


def near(token: Token, policy: Policy, now_s: float) -> Sequence[int]:
    """Return the moments that a cluster accepts, apart from those that are spent."""
    return near_moments(token, policy, at_ms(now_s))


def resynchronization(
    token: Token, policy: Policy, first: int, now_s: float
) -> ResynchronizeToken:
    """Return the command for two passcodes in a row, as a primary stamps it."""
    is_right = first in wide_moments(token, policy, at_ms(now_s))
    moments = (Moment(first + 1),) if is_right else ()
    return ResynchronizeToken(serial=token.serial, moments=moments)


@dataclass
class Devices:
    """The tokens in the hands of their users: what they show, and what they have shown."""

    rng: random.Random
    now_s: Callable[[], float]
    accepted: Callable[[str], int]
    """Returns the last moment of a user that was accepted anywhere."""
    shown: dict[str, list[int]] = field(default_factory=dict)
    ahead: dict[str, int] = field(default_factory=dict)
    """The time steps by which the clock of a TOTP token is ahead."""

    def next(self, user: str) -> int:
        """Return the newest moment of a token: the present step, or a new counter."""
        shown = self.shown.setdefault(user, [])
        if TOKEN_USERS[user] is Algorithm.TOTP:
            moment = step_now(self.now_s()) + self.ahead.get(user, 0)
        else:
            moment = max([-1, *shown[-1:]]) + 1
        if moment not in shown[-1:]:
            shown.append(moment)
        return moment

    def knows(self, token: Token, user: str) -> bool:
        """Return whether a cluster finds what the token shows."""
        if TOKEN_USERS[user] is Algorithm.HOTP:
            return not token.out_of_step
        return abs(token.drift - self.ahead.get(user, 0)) <= 1

    def some(self, user: str) -> int:
        """Return a moment that a person types: a new one, or one of the last again."""
        shown = self.shown.get(user, [])[-REPEATED:]
        is_ahead = bool(shown) and shown[-1] - self.accepted(user) >= UNUSED_MAX
        if shown and (
            self.rng.random() < 0.4
            or (is_ahead and TOKEN_USERS[user] is Algorithm.HOTP)
        ):
            return self.rng.choice(shown)
        return self.next(user)

    def pair(self, user: str) -> int:
        """Return the first of two passcodes in a row, which a user reads to an operator."""
        if TOKEN_USERS[user] is Algorithm.TOTP:
            return self.next(user) - 1
        first = self.next(user)
        self.next(user)
        return first

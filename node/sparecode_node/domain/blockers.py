# SPDX-License-Identifier: Apache-2.0
"""
Blockers: what stands in the way of a user's passcodes now, in words (A4, L).

The decision on a passcode does not use them: it finds the same obstacles by itself. They
answer help desks before a code is issued, and after a user was refused.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sparecode_node.domain.emergency_access import EmergencyCodeSet
from sparecode_node.domain.lockout import Factor, Lockout
from sparecode_node.domain.outcomes import Reason, plural
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.recovery import refuses_recovered
from sparecode_node.domain.tokens import Token

_FACTORS = {Factor.TOKEN: "Tokencodes", Factor.EMERGENCY: "Emergency codes"}
_OF_TOKENS = {
    Reason.TOKEN_DISABLED: "Token {} is disabled, and so are its codes.",
    Reason.PIN_NOT_SET: "Token {} needs a PIN and has none.",
    Reason.TOKEN_OUT_OF_STEP: "Token {} needs to be resynchronized.",
    Reason.RECOVERED_TOKEN_REFUSED: (
        "Token {} counts as lost: its tokencodes are refused."
    ),
}
"""Obstacles that end when an administrator has changed the token, by its serial."""
_AGENTS_NAMED = 10
"""Agents that the words name; more are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """Why passcodes of a user are refused now."""

    reason: Reason
    """The reason that the audit log gives for such a refusal."""
    serial: str = ""
    """The token that it concerns; empty: the user, with all tokens."""
    factor: Factor | None = None
    """The factor that it blocks; None: both."""
    until_ms: int | None = None
    """When it ends by itself, as far as is known; None: it does not."""
    since_ms: int | None = None
    """The end of a token that has expired."""
    failures: int = 0
    """Consecutive wrong passcodes that led to a lock."""
    agents: tuple[str, ...] = ()
    """The names of the agents that do not admit the user; the others do."""

    @property
    def words(self) -> str:
        """What stands in the way, as a sentence. Times are in UTC."""
        match self.reason:
            case Reason.LOCKED if self.factor is not None:
                return self._lock(_FACTORS[self.factor])
            case Reason.USER_DISABLED:
                return "The user is disabled: every passcode is refused."
            case Reason.USER_NOT_ALLOWED:
                return f"The allow lists of these agents exclude the user: {self._names()}."
            case Reason.TOKEN_NOT_ASSIGNED:
                return (
                    f"Token {self.serial} is not assigned to a user."
                    if self.serial
                    else "The user has no token."
                )
            case Reason.TOKEN_EXPIRED:
                return (
                    f"Token {self.serial} expired on {_time(self.since_ms)}, and its "
                    "codes ended with it."
                )
            case Reason.TOKENCODE_MAYBE_SPENT:
                return (
                    f"Until {_time(self.until_ms)}, each sign-in with token "
                    f"{self.serial} takes two tokencodes in a row: this cluster was "
                    "restored, or took the user back, and does not know how the token "
                    "was used before."
                )
            case reason if reason in _OF_TOKENS:
                return _OF_TOKENS[reason].format(self.serial)
            case _:
                return self.reason.value.replace("_", " ").capitalize() + "."

    def _lock(self, what: str) -> str:
        after = f"after {plural(self.failures, 'wrong passcode')}"
        if self.until_ms is None:
            return (
                f"{what} are locked {after}, until an administrator unlocks the user."
            )
        return f"{what} are locked until {_time(self.until_ms)} {after}."

    def _names(self) -> str:
        named = ", ".join(self.agents[:_AGENTS_NAMED])
        more = len(self.agents) - _AGENTS_NAMED
        return f"{named} and {plural(more, 'other')}" if more > 0 else named


def of_lockout(factor: Factor, lockout: Lockout, now_ms: int) -> Blocker | None:
    """Return the blocker of a factor that waits or is locked (L)."""
    if not lockout.blocks(now_ms):
        return None
    return Blocker(
        reason=Reason.LOCKED,
        factor=factor,
        until_ms=None if lockout.off else lockout.blocked_until_ms,
        failures=lockout.failures,
    )


def of_token(
    token: Token, sets: Sequence[EmergencyCodeSet], now_ms: int
) -> tuple[Blocker, ...]:
    """Return what stands in the way of the passcodes of a token. *sets*: newest first."""
    serial = token.serial
    unusable = token.usable(now_ms)
    blockers = []
    if unusable is not None:
        ends_ms = token.expires_at_ms
        expired = unusable.reason is Reason.TOKEN_EXPIRED
        blockers.append(
            Blocker(
                reason=unusable.reason,
                serial=serial,
                since_ms=ends_ms if expired else None,
            )
        )
    if token.user_id is not None and (
        token.pin_rule is not PinRule.NONE and not token.pin_set
    ):
        blockers.append(Blocker(reason=Reason.PIN_NOT_SET, serial=serial))
    if token.out_of_step:
        blockers.append(
            Blocker(reason=Reason.TOKEN_OUT_OF_STEP, serial=serial, factor=Factor.TOKEN)
        )
    if token.parameters.by_time and now_ms < token.doubted_until_ms():
        blockers.append(
            Blocker(
                reason=Reason.TOKENCODE_MAYBE_SPENT,
                serial=serial,
                factor=Factor.TOKEN,
                until_ms=token.doubted_until_ms(),
            )
        )
    if token.user_id is not None and refuses_recovered(token, sets, now_ms):
        blockers.append(
            Blocker(
                reason=Reason.RECOVERED_TOKEN_REFUSED,
                serial=serial,
                factor=Factor.TOKEN,
            )
        )
    return tuple(blockers)


def _time(at_ms: int | None) -> str:
    at = dt.datetime.fromtimestamp((at_ms or 0) / 1000, dt.UTC)
    # A wait of seconds would otherwise seem to be over.
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at.second else f"{at:%Y-%m-%d %H:%M} UTC"

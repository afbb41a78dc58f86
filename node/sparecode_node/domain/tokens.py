# SPDX-License-Identifier: Apache-2.0
"""Tokens, their states and transitions (K)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import NO_KEY, KeyId, Moment, TokenSerial, UserId
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.pins import NewPin, PinRule
from sparecode_node.domain.policy import BOUNDS, MINUTE_MS, TIME_MS_MAX
from sparecode_node.domain.tokencodes import TokencodeParameters, step_at

NOTHING_SPENT = Moment(-1)
"""The moment before the first step or counter."""

DRIFT_GROWTH_MAX = BOUNDS["resynchronize_window_steps"][1] + 1
"""
Time steps by which one resynchronization can move a drift forward, under any policy.

The first of its two tokencodes is in the window, and the drift is that of the second.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A one-time-password token."""

    serial: TokenSerial
    parameters: TokencodeParameters
    sealed_seed: bytes
    key_id: KeyId
    pin_rule: PinRule
    expires_at_ms: int | None
    enabled: bool = True
    user_id: UserId | None = None
    pin_verifier: bytes = b""
    """Empty: no PIN is set."""
    pin_key_id: KeyId = NO_KEY
    pin_lettered: bool = False
    """Whether the PIN has a letter."""
    sealed_pin: bytes = b""
    """The sealed PIN of a PINpad token, needed to check tokencodes; else empty (T3)."""
    spent: Moment = NOTHING_SPENT
    """The last spent moment; it and earlier ones are never accepted again (K1)."""
    maybe_spent: Moment = NOTHING_SPENT
    """
    The last moment that a lost state, or another cluster, may have spent (E1).

    Up to it one tokencode is not enough, because no one knows what the token's clock was
    there. Before any restore it is that before the first moment.
    """
    drift: int = 0
    """Time steps by which the token's clock was last seen ahead of the primary's."""
    lost: bool = False
    """Whether codes were issued for it and it has not been used or reinstated since (R)."""
    recovery: RecoveryPolicy = RecoveryPolicy.DENY
    """Recovery policy of the newest set (I8)."""
    out_of_step: bool = False
    """Whether the last spent counter is unknown, so the token needs resynchronizing (E1)."""

    @property
    def pin_set(self) -> bool:
        """Whether a PIN is set."""
        return bool(self.pin_verifier)

    def expired(self, now_ms: int) -> bool:
        """Return whether the token has expired: from its end on (I7)."""
        return self.expires_at_ms is not None and now_ms >= self.expires_at_ms

    def usable(self, now_ms: int) -> Rejected | None:
        """Return why no passcode of this token is accepted now, or None (A4, I1)."""
        if self.user_id is None:
            return self.not_assigned()
        if not self.enabled:
            return Rejected(Reason.TOKEN_DISABLED, f"token {self.serial} is disabled")
        if self.expired(now_ms):
            return Rejected(Reason.TOKEN_EXPIRED, f"token {self.serial} has expired")
        return None

    def assigned(self, user_id: UserId) -> "Token | Rejected":
        """Return the token assigned to the user, without the previous user's PIN."""
        if self.user_id is not None:
            return Rejected(
                Reason.TOKEN_ASSIGNED,
                f"token {self.serial} is already assigned; unassign it first",
                "serial",
            )
        return replace(self._without_pin(), user_id=user_id)

    def with_pin(self, pin: NewPin) -> "Token | Rejected":
        """Return the token with a new PIN."""
        if self.pin_rule is PinRule.NONE:
            return self._without_pin_rule()
        pinpad = self.pin_rule is PinRule.PINPAD
        if pinpad and not pin.sealed:
            return Rejected(
                Reason.PIN_FORMAT,
                f"this PIN cannot be folded into the tokencodes of token {self.serial}; "
                "set a new one",
                "serial",
            )
        return replace(
            self,
            pin_verifier=pin.verifier,
            pin_key_id=pin.key_id,
            pin_lettered=pin.lettered,
            sealed_pin=pin.sealed if pinpad else b"",
        )

    def unassigned(self) -> "Token | Rejected":
        """
        Return the token without a user and without a PIN.

        A lost token stays lost: unassigning it does not mean that it was found (R2).
        """
        if self.user_id is None:
            return replace(self.not_assigned(), field="serial")
        return self.without_user()

    def without_user(self) -> "Token":
        """Return the token without a user and without a PIN."""
        return replace(self._without_pin(), user_id=None)

    def not_assigned(self) -> Rejected:
        """Return the refusal for a token without a user."""
        return Rejected(
            Reason.TOKEN_NOT_ASSIGNED, f"token {self.serial} is not assigned"
        )

    def without_pin(self) -> "Token | Rejected":
        """Return the token with its PIN cleared."""
        if self.pin_rule is PinRule.NONE:
            return self._without_pin_rule()
        if not self.pin_set:
            return Rejected(
                Reason.PIN_NOT_SET, f"token {self.serial} has no PIN", "serial"
            )
        return self._without_pin()

    def spend(self, moment: Moment, now_ms: int) -> "Token | Rejected":
        """
        Return the token after the tokencode of *moment* has been spent.

        A tokencode is accepted at most once (RFC 6238, 5.2; RFC 4226, 7.2). Moments
        only move forward, so one integer is enough to refuse every replay. Each success
        updates the learned drift of the token's clock (RFC 6238, 6).
        """
        if moment <= self.spent:
            return Rejected(Reason.TOKENCODE_SPENT)
        drift = self.drift
        if self.parameters.by_time:
            drift = moment - step_at(now_ms, self.parameters)
        return replace(self, spent=moment, drift=drift)

    def resynchronized(
        self, moments: Sequence[Moment], now_ms: int
    ) -> "Token | Rejected":
        """
        Return the token after two consecutive tokencodes have shown its position (K1).

        *moments* are the moments of the second tokencode at which both are right. Both
        become spent; neither may be spent already, nor perhaps be (E1).
        """
        if not moments:
            return Rejected(
                Reason.TOKENCODES_NOT_CONSECUTIVE,
                f"these are not two consecutive current tokencodes of token "
                f"{self.serial}; wait for the next two",
            )
        for moment in sorted(moments):
            if moment - 1 > max(self.spent, self.maybe_spent):
                spent = self.spend(moment, now_ms)
                if isinstance(spent, Token):
                    spent = replace(spent, out_of_step=False)
                return spent
        if max(moments) - 1 > self.spent:
            return Rejected(
                Reason.TOKENCODE_MAYBE_SPENT,
                "these tokencodes may have been used before this cluster was restored, "
                "or took the user back; try again in "
                f"{plural(self._doubt_minutes(now_ms), 'minute')}",
            )
        return Rejected(
            Reason.TOKENCODE_SPENT,
            "one of these tokencodes, or a later one, was already used; wait for the "
            "next two",
        )

    def doubted_until_ms(self) -> int:
        """Return from when on one tokencode is enough, by the learned drift (E1)."""
        first = self.maybe_spent + 1 - self.drift
        return min(first * 1_000 * self.parameters.period_s, TIME_MS_MAX)

    def _doubt_minutes(self, now_ms: int) -> int:
        return max(1, -((now_ms - self.doubted_until_ms()) // MINUTE_MS))

    def reinstated(self) -> "Token":
        """Return the token without its lost mark (R)."""
        return replace(self, lost=False)

    def _without_pin(self) -> "Token":
        return replace(
            self,
            pin_verifier=b"",
            pin_key_id=NO_KEY,
            pin_lettered=False,
            sealed_pin=b"",
        )

    def _without_pin_rule(self) -> Rejected:
        return Rejected(
            Reason.PIN_NOT_USED,
            f"token {self.serial} is used without a PIN",
            "serial",
        )

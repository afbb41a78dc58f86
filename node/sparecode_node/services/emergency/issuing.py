# SPDX-License-Identifier: Apache-2.0
"""New sets of emergency codes: their terms, their codes and their commands (I)."""

from dataclasses import dataclass, field
from typing import Final, TypedDict

from sparecode_node.domain import issuing
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import (
    NO_USER,
    AdministratorName,
    KeyId,
    SetId,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.sealed_codes import address_of
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.services import fields
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.context import Deadline
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.load.fair_queue import administrators_share
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.secrets.kdf import Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.sealed_links import SealedLink
from sparecode_node.services.secrets.sealed_values import Draft
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.emergency_access import (
    IssueFixedTokencode,
    IssueTokencodesInBulk,
    SaveEmergencyAccess,
    SealedCode,
)

NO_DRAFT: Final = ""
GROUP = 4
"""Symbols between two hyphens of a code that is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long a set lives. Neither field: until the token expires (I7)."""

    ends_at_ms: int | None = None
    duration_ms: int | None = None
    """Counted from the commit, by the primary's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCode:
    """One code as its user reads it, `K7PM-4XQ2`. Only the node that drew it shows it, once (I9)."""

    ordinal: int
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSet:
    """New codes: to show to one administrator, and sealed for the log."""

    set_id: SetId
    key_id: KeyId
    shown: tuple[ShownCode, ...]
    sealed: tuple[SealedCode, ...] = field(repr=False)


class _NewSet(TypedDict):
    """The fields that every command with newly drawn codes has."""

    serial: TokenSerial
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    set_id: SetId
    code_length: int
    ends_at_ms: int | None
    lifetime_ms: int | None
    recovery: RecoveryPolicy
    weaken_recovery_policy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTerms:
    """The terms of a new set: how long it lives, and what it does to other codes."""

    lifetime: Lifetime
    recovery: RecoveryPolicy
    keep_unused_codes: bool = False
    weaken_recovery_policy: bool = False

    def check(self) -> None:
        """Check the lifetime's form. Raises `InvalidFieldError`."""
        fields.time_ms("lifetime.end_time", self.lifetime.ends_at_ms)
        duration_ms = self.lifetime.duration_ms
        if self.lifetime.ends_at_ms is not None and duration_ms is not None:
            raise InvalidFieldError(
                "lifetime", "must be an end or a duration, not both"
            )
        if duration_ms is not None and not 0 < duration_ms <= fields.TIME_MAX_MS:
            raise InvalidFieldError("lifetime.duration", "must be more than 0")

    def saving_draft(self, draft: Draft) -> SaveEmergencyAccess:
        """Return the command that saves a draft (I3)."""
        return SaveEmergencyAccess(
            serial=draft.serial,
            user_id=draft.user_id,
            auth_version=draft.auth_version,
            policy_version=draft.policy_version,
            key_id=draft.key_id,
            set_id=draft.set_id,
            code_length=draft.code_length,
            codes=sealed_codes(draft.verifiers),
            ends_at_ms=self.lifetime.ends_at_ms,
            lifetime_ms=self.lifetime.duration_ms,
            recovery=self.recovery,
            keep_unused_codes=self.keep_unused_codes,
            weaken_recovery_policy=self.weaken_recovery_policy,
            draft_id=draft.draft_id,
            draft_ends_at_ms=draft.ends_at_ms,
        )

    def saving_set(
        self,
        serial: TokenSerial,
        user: User | None,
        policy: Policy,
        drawn: DrawnSet,
        link: SealedLink | None = None,
        *,
        to_manager: bool = False,
    ) -> SaveEmergencyAccess:
        """
        Return the command that issues a set in one step (I2).

        *link*: the codes go by message (I13), with *to_manager* to the user's manager.
        """
        return SaveEmergencyAccess(
            **self._new_set(serial, user, policy, drawn),
            codes=drawn.sealed,
            keep_unused_codes=self.keep_unused_codes,
            draft_id=NO_DRAFT,
            draft_ends_at_ms=0,
            opener=link.opener if link else "",
            sealed_codes=link.ciphertext if link else b"",
            recipient=address_of(user, to_manager=to_manager) if link and user else "",
            to_manager=to_manager,
        )

    def fixed_code(
        self, serial: TokenSerial, user: User | None, policy: Policy, drawn: DrawnSet
    ) -> IssueFixedTokencode:
        """Return the command that issues a temporary fixed tokencode (I11)."""
        return IssueFixedTokencode(
            **self._new_set(serial, user, policy, drawn),
            verifier=drawn.sealed[0].verifier if drawn.sealed else b"",
        )

    def issuing_in_bulk(
        self, serial: TokenSerial, user: User | None, policy: Policy, drawn: DrawnSet
    ) -> IssueTokencodesInBulk:
        """Return the command that issues one set of a bulk issue."""
        return IssueTokencodesInBulk(
            **self._new_set(serial, user, policy, drawn),
            verifiers=tuple(code.verifier for code in drawn.sealed),
        )

    def _new_set(
        self, serial: TokenSerial, user: User | None, policy: Policy, drawn: DrawnSet
    ) -> _NewSet:
        return _NewSet(
            serial=serial,
            user_id=user.user_id if user else NO_USER,
            auth_version=user.auth_version if user else 0,
            policy_version=policy.version,
            key_id=drawn.key_id,
            set_id=drawn.set_id,
            code_length=policy.code_length,
            ends_at_ms=self.lifetime.ends_at_ms,
            lifetime_ms=self.lifetime.duration_ms,
            recovery=self.recovery,
            weaken_recovery_policy=self.weaken_recovery_policy,
        )


class CodeDrawer:
    """Draws sets of codes, and hashes them in the lane for issuing (I5, I12)."""

    def __init__(
        self, *, sealing: Sealing, kdf: Kdf, rates: Rates, entropy: Entropy
    ) -> None:
        self._sealing = sealing
        self._kdf = kdf
        self._rates = rates
        self._entropy = entropy

    def nothing(self) -> DrawnSet:
        """Return a set without codes, for a command that apply will refuse."""
        return DrawnSet(
            set_id=SetId(self._entropy.uuid()),
            key_id=self._sealing.active_key,
            shown=(),
            sealed=(),
        )

    async def draw(
        self,
        user: User,
        policy: Policy,
        count: int,
        deadline: Deadline,
        *,
        administrator: AdministratorName,
    ) -> DrawnSet:
        """Draw *count* codes for a user. Raises `RateError`, `HashingOverloadedError`."""
        self._rates.issue(administrator=administrator, codes=count)
        set_id, key_id = SetId(self._entropy.uuid()), self._sealing.active_key
        codes = draw_codes(
            self._entropy,
            alphabet=policy.code_alphabet,
            length=policy.code_length,
            count=count,
        )
        hashes = await self._kdf.derive(
            [
                KdfInput(secret=Secret.CODE, salt=user.code_salt, text=code)
                for code in codes
            ],
            lane=Lane.ISSUING,
            share=administrators_share(administrator),
            timeout_s=deadline.left_s(),
        )
        return DrawnSet(
            set_id=set_id,
            key_id=key_id,
            shown=tuple(
                ShownCode(ordinal=ordinal, code=grouped(code))
                for ordinal, code in enumerate(codes, start=1)
            ),
            sealed=sealed_codes(
                tuple(
                    self._sealing.code_verifier(hashed, user.user_id, set_id, key_id)
                    for hashed in hashes
                )
            ),
        )


def sealed_codes(verifiers: tuple[bytes, ...]) -> tuple[SealedCode, ...]:
    """Return the codes of a set, numbered from 1."""
    return tuple(
        SealedCode(ordinal=ordinal, verifier=verifier)
        for ordinal, verifier in enumerate(verifiers, start=1)
    )


def count_of(requested: int | None, policy: Policy) -> int:
    """Return how many codes to draw. None: the policy's default (I4)."""
    if requested is None:
        return policy.codes_per_set_default
    most = policy.codes_per_set_max
    if not 1 <= requested <= most:
        raise InvalidFieldError("count", f"must be 1 to {most}; is {requested}")
    return requested


def problem(
    token: Token, user: User | None, count: int, policy: Policy, now_ms: int
) -> Rejected | None:
    """
    Return why apply would refuse codes for this token, before any are shown (I1, I6).

    Only the reasons that no terms change: the terms come with Save, and apply judges
    again.
    """
    issue = issuing.issue(
        token,
        user,
        sets=(),
        count=count,
        wish=issuing.Wish(
            ends_at_ms=None,
            lifetime_ms=policy.lifetime_ms_max,
            recovery=RecoveryPolicy.DENY,
            keep_unused_codes=False,
            weaken_recovery_policy=False,
        ),
        policy=policy,
        now_ms=now_ms,
    )
    return issue if isinstance(issue, Rejected) else None


def draw_codes(
    entropy: Entropy, *, alphabet: str, length: int, count: int
) -> tuple[str, ...]:
    """
    Return *count* distinct codes, each with a letter if the alphabet has one.

    Codes without a letter and repeated codes are drawn again. So every allowed code
    is equally likely.
    """
    lettered = any(symbol.isalpha() for symbol in alphabet)
    codes: dict[str, None] = {}
    while len(codes) < count:
        code = entropy.choices(alphabet, length)
        if not lettered or any(symbol.isalpha() for symbol in code):
            codes[code] = None
    return tuple(codes)


def grouped(code: str) -> str:
    """Return a code as it is shown: `K7PM-4XQ2`. Hyphens are not part of it."""
    groups = [code[at : at + GROUP] for at in range(0, len(code), GROUP)]
    return "-".join(groups)

# SPDX-License-Identifier: Apache-2.0
"""Use cases: one-time tokencodes that stand in for a lost token (I, R)."""

from dataclasses import dataclass, field

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.queries.views import EmergencyAccessView, Page
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.kdf import Kdf
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.services.sealing import Sealing
from sparecode_node.statemachine.results import Applied, EmergencyAccessSaved


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long a set lives; neither: until the token expires (I7)."""

    ends_at_ms: int | None = None
    duration_ms: int | None = None
    """From the commit on, by the primary's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCode:
    """One code as its owner reads it, `K7PM-4XQ2`; shown once, by who drew it (I9)."""

    ordinal: int
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """Codes that are not active until the draft is saved (I3)."""

    codes: tuple[ShownCode, ...]
    draft: bytes = field(repr=False)
    """Sealed; holds verifiers, never codes."""
    draft_ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Codes that are live, unless an earlier call with this id had issued others."""

    saved: EmergencyAccessSaved
    codes: tuple[ShownCode, ...]
    """Empty if *withheld*."""
    withheld: bool
    """An earlier call's set was committed; its codes cannot be shown again (I9)."""


class Emergency:
    """
    Issues sets of one-time tokencodes and shows who is in emergency access.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` and `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        sealing: Sealing,
        kdf: Kdf,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._sealing = sealing
        self._kdf = kdf
        self._clock = clock
        self._entropy = entropy

    async def generate(
        self, context: CallContext, *, serial: str, count: int = 0
    ) -> Generated:
        """Draw codes and a draft of their set; changes nothing. *count* 0 means 10."""
        raise NotImplementedError

    async def save(
        self,
        context: CallContext,
        *,
        serial: str,
        draft: bytes,
        lifetime: Lifetime,
        recovery: RecoveryPolicy,
        keep_unused_codes: bool = False,
        weaken_recovery_policy: bool = False,
    ) -> EmergencyAccessSaved:
        """Make a generated set live, once, on whichever node (I3)."""
        raise NotImplementedError

    async def issue(
        self,
        context: CallContext,
        *,
        serial: str,
        count: int = 0,
        lifetime: Lifetime,
        recovery: RecoveryPolicy,
        keep_unused_codes: bool = False,
        weaken_recovery_policy: bool = False,
    ) -> Issued:
        """Generate and save in one step; the codes leave after the commit (I2)."""
        raise NotImplementedError

    async def get(
        self, context: CallContext, serial: str, *, stale_ok: bool = False
    ) -> Read[EmergencyAccessView]:
        """Return the emergency access of one token, with its sets."""
        raise NotImplementedError

    async def list(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        live_codes_max: int = 0,
        end_before_ms: int | None = None,
        stale_ok: bool = False,
    ) -> Read[Page[EmergencyAccessView]]:
        """Return a page of the tokens in emergency access, in the order of serials."""
        raise NotImplementedError

    async def disable(
        self, context: CallContext, *, serial: str, reinstate_token: bool = False
    ) -> Applied:
        """Void all live codes of a token; accept the token again if asked (R2)."""
        raise NotImplementedError

# SPDX-License-Identifier: Apache-2.0
"""Commands on administrators' sessions."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName, KeyId, Moment, SessionId
from sparecode_node.domain.passkeys import PasskeyAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """Sign an administrator in, if the candidate matches the password's verifier."""

    administrator: AdministratorName
    candidate: bytes
    administrator_version: int
    """Version of the row that the candidate was computed with; 0: unknown name."""
    key_id: KeyId
    session_id: SessionId
    second_factor: bool = False  # Whether the caller sent a code.
    moments: tuple[Moment, ...] = ()  # Of that code; filled in by the primary (T1).
    device: str = ""
    """The device whose cookie the called node has checked; empty: a stranger (L7)."""
    address: str = ""
    """Where it is opened from, for the list of sessions."""
    door: str = ""
    """How it is opened: `console` or `api`."""
    passkey: PasskeyAnswer | None = None
    """None: the caller sent no answer of a passkey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reauthenticate:
    """Record that the caller has shown password and second factor again (P7)."""

    administrator: AdministratorName
    candidate: bytes
    administrator_version: int
    """Version of the row that the candidate was computed with."""
    key_id: KeyId
    second_factor: bool = False  # Whether the caller sent a code.
    moments: tuple[Moment, ...] = ()  # Of that code; filled in by the primary (T1).
    passkey: PasskeyAnswer | None = None
    """None: the caller sent no answer of a passkey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSession:
    """End the calling session, or all sessions of its administrator."""

    everywhere: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSession:
    """End one session of the caller, or of another administrator."""

    session_id: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class TouchSessions:
    """
    Record that these sessions are in use (P2).

    Ended sessions stay ended. This decides nothing, so it is neither deduplicated nor
    audited: an administrator at work would fill the audit log.
    """

    session_ids: tuple[SessionId, ...]

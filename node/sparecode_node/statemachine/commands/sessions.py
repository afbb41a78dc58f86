# SPDX-License-Identifier: Apache-2.0
"""Commands on administrators' sessions."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName, KeyId, Moment, SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """Sign an administrator in, if the candidate is the verifier of the password."""

    administrator: AdministratorName
    candidate: bytes
    administrator_version: int
    """Of the administrator's row that the candidate was computed with; 0: unknown name."""
    key_id: KeyId
    session_id: SessionId
    second_factor: bool = False  # A code of it was given.
    moments: tuple[Moment, ...] = ()  # Of that code; filled in by the primary (T1).


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSession:
    """End the calling session, or every session of its administrator."""

    everywhere: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TouchSessions:
    """
    Say that these sessions are used now (P2).

    What has ended stays so. Nothing is decided, so it is neither remembered nor an
    event: an administrator at work would fill the audit log.
    """

    session_ids: tuple[SessionId, ...]

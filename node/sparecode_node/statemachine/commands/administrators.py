# SPDX-License-Identifier: Apache-2.0
"""Commands on administrators."""

from dataclasses import dataclass

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import NO_KEY, AdministratorName, KeyId, Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateAdministrator:
    """Add an administrator with a temporary password."""

    name: AdministratorName
    role: Role
    user: str | None
    """The folded name of the user that is the same person; None: no user."""
    password_salt: bytes
    password_verifier: bytes
    key_id: KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateAdministrator:
    """Change an administrator. Fields that are None stay."""

    name: AdministratorName
    role: Role | None
    enabled: bool | None
    user: str | None
    no_user: bool
    """Unlink the administrator from their user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAdministrator:
    """Remove an administrator. Their events stay in the audit log."""

    name: AdministratorName


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePassword:
    """
    Change an administrator's password, and end their sessions.

    Changing one's own password takes the old one (*candidate*). The new password of
    another administrator is temporary.
    """

    name: AdministratorName
    candidate: bytes
    """Candidate for the old password; empty for another administrator's."""
    administrator_version: int
    """Version of the row that the candidate was computed with; 0: unknown name."""
    key_id: KeyId
    """Key that the verifier was made with."""
    password_salt: bytes
    password_verifier: bytes
    candidate_key_id: KeyId = NO_KEY
    """Key that the candidate was made with; 0: the same key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSecondFactor:
    """Require a code when the calling administrator signs in, if this one is right."""

    name: AdministratorName
    sealed_seed: bytes
    key_id: KeyId
    draft_ends_at_ms: int
    moments: tuple[Moment, ...] = ()
    """Time steps at which the typed code is right; filled in by the primary (T1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSecondFactor:
    """Remove the second factor of another administrator, and end their sessions."""

    name: AdministratorName


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetAdministrator:
    """
    Let an administrator who is locked out in again, with a temporary password.

    Called on the node's local socket. From feature level 2 on it is a request: it takes
    effect after the policy's `reset_delay`, unless it is canceled (P4). Then it enables
    the administrator, clears waits and ends all sessions. The role stays.
    """

    name: AdministratorName
    password_salt: bytes
    password_verifier: bytes
    key_id: KeyId
    uid: int
    """User id of the calling process, as told by the node's kernel."""
    second_factor: bool = False
    """Also remove the second factor. At feature level 1 every reset removes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelReset:
    """Cancel a requested reset of an administrator, before it is in force."""

    name: AdministratorName

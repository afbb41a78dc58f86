# SPDX-License-Identifier: Apache-2.0
"""Commands on administrators."""

from dataclasses import dataclass

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import NO_KEY, AdministratorName, KeyId, Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateAdministrator:
    """Add an administrator, whose password is a temporary one."""

    name: AdministratorName
    role: Role
    user: str | None
    """The folded name of the user that this person is; absent: none."""
    password_salt: bytes
    password_verifier: bytes
    key_id: KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateAdministrator:
    """Change what is given of an administrator; what is absent stays."""

    name: AdministratorName
    role: Role | None
    enabled: bool | None
    user: str | None
    no_user: bool
    """This person is no user, from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAdministrator:
    """Remove an administrator; what they have done stays in the audit log."""

    name: AdministratorName


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePassword:
    """
    Change an administrator's password, and end their sessions.

    One's own takes the old one (*candidate*); another's becomes a temporary one.
    """

    name: AdministratorName
    candidate: bytes
    """Of the old password; empty where none was asked for."""
    administrator_version: int
    """Of the row that the candidate was computed with; 0: unknown name."""
    key_id: KeyId
    """That the verifier was made with."""
    password_salt: bytes
    password_verifier: bytes
    candidate_key_id: KeyId = NO_KEY
    """That the candidate was made with; 0: the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSecondFactor:
    """Ask the calling administrator for a code from now on, if this one is right."""

    name: AdministratorName
    sealed_seed: bytes
    key_id: KeyId
    draft_ends_at_ms: int
    moments: tuple[Moment, ...] = ()
    """Steps that what was typed is the code of; filled in by the primary (T1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSecondFactor:
    """Take the second factor of another administrator away, and end their sessions."""

    name: AdministratorName


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetAdministrator:
    """
    Give an administrator who is locked out a temporary password, and let them in.

    Asked for on the node's local socket. Enabled again, without waits; the role
    stays, and their sessions end.
    """

    name: AdministratorName
    password_salt: bytes
    password_verifier: bytes
    key_id: KeyId
    uid: int
    """Of the process that has asked, as the node's kernel says."""

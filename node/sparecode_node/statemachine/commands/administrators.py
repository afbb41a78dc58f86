# SPDX-License-Identifier: Apache-2.0
"""Commands on administrators."""

from dataclasses import dataclass

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import NO_KEY, AdministratorName, KeyId


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
    """Change an administrator. Fields that are None keep their value."""

    name: AdministratorName
    role: Role | None
    enabled: bool | None
    user: str | None
    no_user: bool
    """Unlink the administrator from their user."""
    etag: str = ""


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

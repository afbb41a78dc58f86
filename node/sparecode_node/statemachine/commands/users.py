# SPDX-License-Identifier: Apache-2.0
"""Commands on users."""

from dataclasses import dataclass

from sparecode_node.domain.ids import GroupKey, KeyId, NameKey, UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateUser:
    """Add a user."""

    user_id: UserId
    username: str
    name_key: NameKey
    name_tag: bytes
    """Keyed hash of the name key; authentication looks the user up by it (A6)."""
    display_name: str
    email: str
    pin_salt: bytes
    code_salt: bytes
    key_id: KeyId
    """Key of the ring that the tag was made with."""
    join_groups: tuple[GroupKey, ...] = ()
    """Initial groups: the user is added with all of them, or not at all."""
    language: str = ""
    manager_email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateUser:
    """Change a user. Fields that are None keep their value."""

    name_key: NameKey
    display_name: str | None
    email: str | None
    enabled: bool | None
    join_groups: tuple[GroupKey, ...] = ()
    leave_groups: tuple[GroupKey, ...] = ()
    language: str | None = None
    manager_email: str | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteUser:
    """Delete a user without tokens."""

    name_key: NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockUser:
    """Reset the failure counts of both factors and end their locks (L6)."""

    name_key: NameKey

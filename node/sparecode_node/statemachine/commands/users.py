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
    """Keyed hash of the name key, by which authentication finds the user (A6)."""
    display_name: str
    email: str
    pin_salt: bytes
    code_salt: bytes
    key_id: KeyId
    """The key of the ring with which the tag was made."""
    join_groups: tuple[GroupKey, ...] = ()
    """Where the user is from the beginning: added with all of them, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateUser:
    """Change what is given of a user; what is absent stays."""

    name_key: NameKey
    display_name: str | None
    email: str | None
    enabled: bool | None
    join_groups: tuple[GroupKey, ...] = ()
    leave_groups: tuple[GroupKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteUser:
    """Delete a user who has no token."""

    name_key: NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockUser:
    """Set the failure counts of both factors to zero and end their locks (L6)."""

    name_key: NameKey

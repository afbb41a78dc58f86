# SPDX-License-Identifier: Apache-2.0
"""Administrators as values."""

import enum
from dataclasses import dataclass, field
from datetime import datetime


class AdministratorRole(enum.StrEnum):
    """What an administrator is there for (P1)."""

    SUPER_ADMIN = "super_admin"
    """May do all."""
    HELP_DESK = "help_desk"
    """Finds users and tokens, issues and disables emergency access, unlocks."""
    AUDITOR = "auditor"
    """Reads all, changes nothing."""
    OPERATOR = "operator"
    """Runs the cluster, sees no user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrator:
    """A person who manages the service."""

    name: str
    role: AdministratorRole | None
    """None: of a kind that this release does not know."""
    enabled: bool
    username: str
    """The user that this person is, for whom they can do nothing; empty: none."""
    password_temporary: bool
    """Somebody else chose the password; it is to be changed at first."""
    second_factor: bool = False
    """A code of an authenticator app is asked for as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledSecondFactor:
    """A secret for an authenticator app: not in force until a code confirms it."""

    secret: str = field(repr=False)
    """In base32, for typing."""
    uri: str = field(repr=False)
    """For a QR code."""
    draft: bytes = field(repr=False)
    end_time: datetime | None
    """Until then it can be confirmed."""

# SPDX-License-Identifier: Apache-2.0
"""Administrators and their roles."""

import enum
from dataclasses import dataclass, field
from datetime import datetime


class AdministratorRole(enum.StrEnum):
    """The role of an administrator (P1)."""

    SUPER_ADMIN = "super_admin"
    """May do everything."""
    HELP_DESK = "help_desk"
    """Finds users and tokens, issues and disables emergency access, unlocks."""
    AUDITOR = "auditor"
    """Reads everything, changes nothing."""
    OPERATOR = "operator"
    """Runs the cluster, sees no users."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Administrator:
    """A person who manages the service."""

    name: str
    role: AdministratorRole | None
    """None: a role that this release does not know."""
    enabled: bool
    username: str
    """This person's own user, for whom they can do nothing; empty: no user."""
    password_temporary: bool
    """Another administrator chose the password; it must be changed before anything else."""
    second_factor: bool = False
    """Signing in also needs a code from an authenticator app."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledSecondFactor:
    """A secret for an authenticator app. It has no effect until a code confirms it."""

    secret: str = field(repr=False)
    """In base32, to type into the app."""
    uri: str = field(repr=False)
    """The same as an `otpauth` URI, for a QR code."""
    draft: bytes = field(repr=False)
    end_time: datetime | None
    """When the draft ends; confirm the secret before."""

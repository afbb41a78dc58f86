# SPDX-License-Identifier: Apache-2.0
"""Agents: programs that check passcodes, what they protect, and whom they admit."""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import AgentIdentity

GROUPS_MAX = 32
"""Maximum groups of one user, and maximum groups on one agent's allow list."""

ALLOWED_USERS_MAX = 2_000
"""Maximum users on one agent's allow list."""

REPLACED_KEYS_MAX = 3
"""Maximum replaced bearer keys of one agent that still work."""


class Protects(enum.StrEnum):
    """What an agent protects. Emergency codes do not cover `CLOUD` (A4)."""

    AUTHENTICATION_MANAGER = "authentication_manager"
    CLOUD = "cloud"


class CertificateMark(enum.StrEnum):
    """The property by which the deny list names a certificate."""

    FINGERPRINT = "fingerprint"
    """SHA-256 of the DER form, in lower-case hexadecimal digits."""
    SERIAL_NUMBER = "serial_number"
    """The serial number set by the issuing authority, in lower-case hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The certificate that an agent calls with, by the properties of the deny list."""

    fingerprint: str
    serial_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A program that checks passcodes, known by its certificate, a bearer key or a RADIUS secret."""

    name: str
    identity: AgentIdentity
    protects: Protects
    enabled: bool = True
    restricted: bool = False
    """Whether it admits only the users on its allow list; otherwise all users."""
    by_radius: bool = False
    """Whether a RADIUS secret identifies it; then no certificate does."""

    @property
    def covers_emergency_codes(self) -> bool:
        """Whether emergency codes work here: they do not cover cloud services (A4)."""
        return self.protects is not Protects.CLOUD

# SPDX-License-Identifier: Apache-2.0
"""Agents: programs that check passcodes, what each protects, and whom it admits."""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import AgentIdentity

GROUPS_MAX = 32
"""Of a user, and on the allow list of an agent."""

ALLOWED_USERS_MAX = 2_000
"""On the allow list of one agent."""


class Protects(enum.StrEnum):
    """What an agent protects. Emergency codes do not cover `CLOUD` (A4)."""

    AUTHENTICATION_MANAGER = "authentication_manager"
    CLOUD = "cloud"


class CertificateMark(enum.StrEnum):
    """By what a certificate is denied."""

    FINGERPRINT = "fingerprint"
    """SHA-256 of its DER form, in lower-case hexadecimal digits."""
    SERIAL_NUMBER = "serial_number"
    """The number that its authority gave it, in lower-case hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The certificate that an agent calls with, as the deny list may name it."""

    fingerprint: str
    serial_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A program that checks passcodes, known by its certificate."""

    name: str
    identity: AgentIdentity
    protects: Protects
    enabled: bool = True
    restricted: bool = False
    """Only the users on its allow list come in; else everybody."""

    @property
    def covers_emergency_codes(self) -> bool:
        """Emergency codes open only what this system protects itself (A4)."""
        return self.protects is not Protects.CLOUD

# SPDX-License-Identifier: Apache-2.0
"""Agents, and denied certificates."""

import enum
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256


class AgentProtects(enum.StrEnum):
    """What an agent protects. Emergency codes are not accepted for `CLOUD` (A4)."""

    AUTHENTICATION_MANAGER = "authentication_manager"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredAgent:
    """An agent: a program that checks passcodes."""

    name: str
    certificate_identity: str
    protects: AgentProtects | None
    enabled: bool
    restricted: bool
    """It admits only the users on its allow list. Otherwise it admits every user."""
    allowed_user_count: int
    allowed_usernames: tuple[str, ...] = ()
    """Users on its allow list; empty in lists of agents."""
    allowed_groups: tuple[str, ...] = ()
    """Groups on its allow list, in the form used for comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedCertificate:
    """A certificate that is refused, named by its fingerprint or its serial number."""

    fingerprint: str
    """SHA-256 in hexadecimal digits; empty if the serial number names it."""
    serial_number: str
    deny_time: datetime | None
    administrator: str
    note: str


def certificate_fingerprint(pem: bytes) -> str:
    """
    Return the SHA-256 fingerprint of the first certificate in *pem*.

    Raises:
        ValueError: *pem* holds no certificate.
    """
    certificate = x509.load_pem_x509_certificates(pem)[0]
    return certificate.fingerprint(SHA256()).hex()

# SPDX-License-Identifier: Apache-2.0
"""The programs that check passcodes, and certificates that are refused, as values."""

import enum
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256


class AgentProtects(enum.StrEnum):
    """What an agent protects; emergency codes do not cover `CLOUD` (A4)."""

    AUTHENTICATION_MANAGER = "authentication_manager"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredAgent:
    """A program that checks passcodes, as the cluster knows it."""

    name: str
    certificate_identity: str
    protects: AgentProtects | None
    enabled: bool
    restricted: bool
    """It admits only the users on its allow list; else everybody."""
    allowed_user_count: int
    allowed_usernames: tuple[str, ...] = ()
    """Its allow list; empty in lists of agents."""
    allowed_groups: tuple[str, ...] = ()
    """On its allow list, too, as they are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedCertificate:
    """A certificate with which nobody is served, by one of its marks."""

    fingerprint: str
    """SHA-256 in hexadecimal digits; empty: denied by its serial number."""
    serial_number: str
    deny_time: datetime | None
    administrator: str
    note: str


def certificate_fingerprint(pem: bytes) -> str:
    """
    Return the SHA-256 by which the first certificate in *pem* is denied.

    Raises:
        ValueError: There is none.
    """
    certificate = x509.load_pem_x509_certificates(pem)[0]
    return certificate.fingerprint(SHA256()).hex()

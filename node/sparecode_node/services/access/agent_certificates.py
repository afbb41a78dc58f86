# SPDX-License-Identifier: Apache-2.0
"""Certificates of agents: whom they name, and by what the deny list knows them (A4)."""

import datetime as dt
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.services.errors import UnidentifiedError

IDENTITY_MAX = 256
_CERTIFICATES_KEPT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCertificate:
    """A certificate whose signature the TLS handshake has checked."""

    identity: AgentIdentity
    marks: Certificate
    ends_at: dt.datetime


def identity_of(
    uris: Sequence[str | bytes], dns_names: Sequence[str | bytes]
) -> AgentIdentity:
    """
    Return the only URI name of a certificate or, if it has none, its only DNS name.

    The common name is not an identity (RFC 9525, 2). Raises `UnidentifiedError`.
    """
    names = uris or dns_names
    if len(names) != 1:
        raise UnidentifiedError
    name = names[0]
    try:
        identity = name.decode("ascii") if isinstance(name, bytes) else name
    except UnicodeDecodeError:
        raise UnidentifiedError from None
    if not identity.isascii() or not 1 <= len(identity) <= IDENTITY_MAX:
        raise UnidentifiedError
    return AgentIdentity(identity)


def marks_of(certificate: x509.Certificate) -> Certificate:
    """Return the marks of a certificate for the deny list."""
    return Certificate(
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        serial_number=f"{certificate.serial_number:x}",
    )


@functools.lru_cache(maxsize=_CERTIFICATES_KEPT)
def read_certificate(der: bytes) -> AgentCertificate:
    """Return what a certificate (DER) says of its agent. Raises `UnidentifiedError`."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
        return AgentCertificate(
            identity=identity_of(
                names.get_values_for_type(x509.UniformResourceIdentifier),
                names.get_values_for_type(x509.DNSName),
            ),
            marks=marks_of(certificate),
            ends_at=certificate.not_valid_after_utc,
        )
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise UnidentifiedError from None

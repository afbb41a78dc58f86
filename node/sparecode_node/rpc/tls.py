# SPDX-License-Identifier: Apache-2.0
"""
Certificates and keys, read from files and checked before gRPC uses them.

For a bad certificate gRPC only reports that it could not bind an address. Here each
error is one line that names the file.
"""

import datetime as dt
import functools
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization


class TlsFileError(Exception):
    """A certificate or key cannot be used. The message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateEnds:
    """When certificates expire."""

    own: dt.datetime
    """The earliest expiry of the own certificate and its chain."""
    ca: dt.datetime | None
    """The earliest expiry of the trusted authorities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """A certificate with its chain, its key and, for mutual TLS, the authorities; PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    ca: bytes | None = None

    @classmethod
    def read(
        cls,
        *,
        certificate: Path,
        key: Path,
        ca: Path | None = None,
        now: dt.datetime | None,
    ) -> "TlsFiles":
        """
        Read and check the files. Raises `TlsFileError`.

        *now*: None does not refuse an expired certificate.
        """
        files = cls(
            certificate=_read(certificate),
            key=_read(key),
            ca=None if ca is None else _read(ca),
        )
        own = _certificates(certificate, files.certificate)[0]
        if now is not None and own.not_valid_after_utc <= now:
            raise TlsFileError(
                f"{certificate}: expired at {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            )
        try:
            private = serialization.load_pem_private_key(files.key, None)
        except (ValueError, TypeError) as error:
            raise TlsFileError(f"{key}: not a private key (PEM): {error}") from error
        if private.public_key() != own.public_key():
            raise TlsFileError(f"{key}: not the key of the certificate {certificate}")
        if ca is not None and files.ca is not None:
            _certificates(ca, files.ca)
        return files

    def ends(self) -> CertificateEnds:
        """Return when the certificates expire."""
        return CertificateEnds(
            own=_first_end(self.certificate),
            ca=None if self.ca is None else _first_end(self.ca),
        )

    def uris(self) -> list[str]:
        """Return the URI subject names of the certificate."""
        certificate = x509.load_pem_x509_certificate(self.certificate)
        try:
            names = certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
        except x509.ExtensionNotFound:
            return []
        return names.value.get_values_for_type(x509.UniformResourceIdentifier)


@functools.lru_cache(maxsize=64)  # Readiness is computed ten times a second.
def _first_end(pem: bytes) -> dt.datetime:
    return min(
        certificate.not_valid_after_utc
        for certificate in x509.load_pem_x509_certificates(pem)
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsFileError(f"{path}: {error.strerror}") from error


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TlsFileError(f"{path}: not a certificate (PEM): {error}") from error

# SPDX-License-Identifier: Apache-2.0
"""What a running member sends to a joining node, read from its files on each request."""

import datetime as dt
import logging
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind
from sparecode_node.membership.certificates import Authority, CertificatesError
from sparecode_node.membership.files import key_beside
from sparecode_node.membership.preparation import ring_file
from sparecode_node.services.cluster.joining import fingerprint_of
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.tickets import der
from sparecode_node.services.secrets.wrapping import MemberSecrets

log = logging.getLogger(__name__)


class FileAuthority:
    """The authorities and keys in this node's files."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.ring: KeyRing | None = None
        """The ring of a running node, which need not be decrypted again."""

    def members_ca(self) -> bytes:
        """Return the certificates of the members' authorities, PEM."""
        return self._config.peers.ca.read_bytes()

    def members_ca_der(self) -> tuple[bytes, ...]:
        """Return the certificates of the members' authorities, DER."""
        return der(self.members_ca())

    def agents_ca(self) -> bytes:
        """Return the certificates of the agents' authorities, PEM."""
        return self._config.agents.ca.read_bytes()

    def can_sign(self) -> bool:
        """Return whether this node has the key of the members' authority."""
        return self._authority() is not None

    def keys(self) -> tuple[AuthorityKey, ...]:
        """
        Return the authorities in this node's files whose keys this node has.

        A key that belongs to none of the certificates signs nothing that members trust.
        """
        return tuple(
            AuthorityKey(authority=kind, fingerprint=fingerprint)
            for kind, path in (
                (AuthorityKind.MEMBERS, self._config.peers.ca),
                (AuthorityKind.AGENTS, self._config.agents.ca),
            )
            if (fingerprint := _fingerprint_of_key_beside(path))
        )

    def sign(
        self,
        node_id: NodeId,
        key: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        now: dt.datetime,
    ) -> bytes:
        """
        Sign and return a member's certificate, PEM.

        Raises `InvalidFieldError`, or `FileNotFoundError` without a usable key.
        """
        authority = self._authority()
        if authority is None:
            raise FileNotFoundError(key_beside(self._config.peers.ca))
        try:
            return authority.certify_member(node_id, key, hosts=hosts, now=now)
        except CertificatesError as error:
            raise InvalidFieldError("hosts", str(error)) from error

    def secrets(self, *, with_authority: bool) -> MemberSecrets:
        """Return the key ring, and *with_authority* the authorities' keys, too."""
        ring = self.ring or ring_file(self._config).load()
        key_ring = ring.to_bytes().decode()
        if not with_authority:
            return MemberSecrets(key_ring=key_ring)
        return MemberSecrets(
            key_ring=key_ring,
            members_ca_key=_text(key_beside(self._config.peers.ca)),
            agents_ca_key=_text(key_beside(self._config.agents.ca)),
        )

    def _authority(self) -> Authority | None:
        key = key_beside(self._config.peers.ca)
        if not key.exists():
            return None
        try:
            return authority_of_key(self.members_ca(), key.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            log.warning(
                "authority_unusable", extra={"file": str(key), "cause": str(error)}
            )
            return None


def authority_of_key(certificates: bytes, key: bytes) -> Authority:
    """
    Return the authority that a private key belongs to; there may be two certificates.

    Members would refuse a certificate that another key signed, and the ticket would
    be used up. Raises `ValueError` if the key belongs to none of them.
    """
    private = serialization.load_pem_private_key(key, None)
    for certificate in x509.load_pem_x509_certificates(certificates):
        if certificate.public_key() == private.public_key():
            return Authority.from_pem(
                certificate.public_bytes(serialization.Encoding.PEM), key
            )
    raise ValueError("it is not the key of any of the members' authorities")


def trusted(members_ca: bytes, agents_ca: bytes) -> tuple[AuthorityKey, ...]:
    """
    Return the authorities of these certificates (PEM), each once.

    Raises `ValueError`.
    """
    return tuple(
        AuthorityKey(authority=kind, fingerprint=fingerprint)
        for kind, content in (
            (AuthorityKind.MEMBERS, members_ca),
            (AuthorityKind.AGENTS, agents_ca),
        )
        for fingerprint in _fingerprints(content)
    )


def _fingerprints(certificates: bytes) -> tuple[str, ...]:
    """Return the fingerprints of the keys of certificates (PEM), each once."""
    each = x509.load_pem_x509_certificates(certificates)
    return tuple(dict.fromkeys(fingerprint_of(one.public_key()) for one in each))


def _fingerprint_of_key_beside(ca: Path) -> str:
    """Return the fingerprint of an authority's key; empty: it is not here."""
    path = key_beside(ca)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        fingerprint = fingerprint_of(key.public_key())
        return fingerprint if fingerprint in _fingerprints(ca.read_bytes()) else ""
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, TypeError) as error:
        log.warning(
            "authority_unusable", extra={"file": str(path), "cause": str(error)}
        )
        return ""


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""

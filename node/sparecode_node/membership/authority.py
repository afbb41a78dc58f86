# SPDX-License-Identifier: Apache-2.0
"""What a running member sends to a joining node, read from its files on each request."""

import datetime as dt
import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind, Successor
from sparecode_node.membership.certificates import Authority, CertificatesError
from sparecode_node.membership.files import key_beside
from sparecode_node.membership.preparation import STATE, ring_file
from sparecode_node.membership.successors import (
    SuccessorFiles,
    announced,
    ca_file,
    trust,
    trusted_pem,
)
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
        self.made = SuccessorFiles(config)
        """The successors that this node has made."""
        self.ring: KeyRing | None = None
        """The ring of a running node, which need not be decrypted again."""

    def members_ca(self) -> bytes:
        """Return the certificates of the members' authorities, PEM."""
        return self._trusted(AuthorityKind.MEMBERS)

    def members_ca_der(self) -> tuple[bytes, ...]:
        """Return the certificates of the members' authorities, DER."""
        return der(self.members_ca())

    def agents_ca(self) -> bytes:
        """Return the certificates of the agents' authorities, PEM."""
        return self._trusted(AuthorityKind.AGENTS)

    def _trusted(self, kind: AuthorityKind) -> bytes:
        return trusted_pem(self._config, kind, ca_file(self._config, kind).read_bytes())

    def can_sign(self, successor: str = "") -> bool:
        """
        Return whether this node has the key of the members' authority.

        *successor*: the fingerprint of one of its successors; empty: the authority that
        signs until its replacement is finished.
        """
        return self._authority(successor) is not None

    def keys(self) -> tuple[AuthorityKey, ...]:
        """
        Return the authorities in this node's files whose keys this node has.

        A key that belongs to none of the certificates signs nothing that members trust.
        """
        found = [
            AuthorityKey(authority=kind, fingerprint=fingerprint)
            for kind in AuthorityKind
            if (fingerprint := _fingerprint_of_key_beside(ca_file(self._config, kind)))
        ]
        for kind in AuthorityKind:
            found += [
                each.key
                for each in self.accepted(kind)
                if self.made.authority(each) is not None
            ]
        return tuple(dict.fromkeys(found))

    def has_replaced_key(self) -> bool:
        """Return whether its key of the members' authority signs nothing any more (P6a)."""
        path = key_beside(self._config.peers.ca)
        fingerprint = _fingerprint_of_key_beside(self._config.peers.ca)
        return path.exists() and any(
            each.sole and each.replaces == fingerprint
            for each in self.accepted(AuthorityKind.MEMBERS)
        )

    def accepted(self, kind: AuthorityKind) -> tuple[Successor, ...]:
        """Return the successors that this node trusts, the earliest first."""
        found = announced(self._config.node.data_dir / STATE)
        return trust(ca_file(self._config, kind).read_bytes(), kind, found).successors

    def sign(
        self,
        node_id: NodeId,
        key: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        now: dt.datetime,
        successor: str = "",
    ) -> bytes:
        """
        Sign and return a member's certificate, PEM. *successor*: see `can_sign`.

        Raises `InvalidFieldError`, or `FileNotFoundError` without a usable key.
        """
        authority = self._authority(successor)
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
            members_ca_key=self._key_text(AuthorityKind.MEMBERS),
            agents_ca_key=self._key_text(AuthorityKind.AGENTS),
        )

    def _key_text(self, kind: AuthorityKind) -> str:
        """Return the key of the authority that is in force, PEM; empty: it is not here."""
        for each in reversed(self.accepted(kind)):
            made = self.made.authority(each) if each.sole else None
            if made is not None:
                return made.key_pem.decode()
        return _text(key_beside(ca_file(self._config, kind)))

    def _authority(self, successor: str = "") -> Authority | None:
        for each in reversed(self.accepted(AuthorityKind.MEMBERS)):
            if successor in ("", each.fingerprint) and (each.sole or successor):
                made = self.made.authority(each)
                if made is not None:
                    return made
        if successor:
            return None
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


@functools.lru_cache(maxsize=16)  # Every status tells it.
def signers(shown: frozenset[bytes], members_ca: bytes) -> tuple[str, ...]:
    """
    Return the fingerprints of the authorities that signed certificates, each once.

    *shown*: the certificates with their chains, PEM. Another authority than those in
    *members_ca* is left out: the members do not rely on it. Raises `ValueError`.
    """
    authorities = x509.load_pem_x509_certificates(members_ca)
    last = {x509.load_pem_x509_certificates(each)[-1] for each in shown}
    return tuple(
        dict.fromkeys(
            fingerprint_of(authority.public_key())
            for authority in authorities
            if any(_signed(each, authority) for each in last)
        )
    )


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


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

# SPDX-License-Identifier: Apache-2.0
"""
Successors of authorities: how a node makes one, and why it trusts one (P6a).

The state says which successors members have announced, and only for an authority that
is due. That alone is not enough: a member without the authority's key could announce one.
So each node checks that the key of an authority in its own files has signed the
announcement. And the signature alone is not enough: a removed member may have the key.

The key of a successor is in the data folder: the folder of certificates belongs to the
operator, and a packaged node cannot write there.
"""

import contextlib
import datetime as dt
import errno
import logging
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind, Successor
from sparecode_node.durable_files import sync_directory, write_file
from sparecode_node.membership.certificates import Authority
from sparecode_node.membership.files import PRIVATE, PUBLIC, key_beside, put
from sparecode_node.membership.preparation import STATE
from sparecode_node.services.cluster.joining import fingerprint_of
from sparecode_node.services.idempotency import content_of
from sparecode_node.statemachine.tables.authorities import (
    ALL_SUCCESSORS,
    successors_in,
)
from sparecode_node.statemachine.tables.schema import read_only_uri

log = logging.getLogger(__name__)

FOLDER = "authorities"
"""In the data folder: keys and certificates of the successors that this node made."""


def signed_content(successor: Successor) -> bytes:
    """Return what the key of the replaced authority signs: nothing of it can be changed."""
    return b"sparecode/v1/authority-successor\0" + content_of(
        {
            "authority": successor.authority.value,
            "replaces": successor.replaces,
            "node_id": successor.node_id,
            "fingerprint": successor.fingerprint,
            "certificate": successor.certificate,
        }
    )


def announcement(
    authority: AuthorityKind,
    node_id: NodeId,
    old_key: ec.EllipticCurvePrivateKey,
    certificate: x509.Certificate,
) -> Successor:
    """Return the successor of an authority, with the proof by its key."""
    unsigned = Successor(
        authority=authority,
        replaces=fingerprint_of(old_key.public_key()),
        node_id=node_id,
        fingerprint=fingerprint_of(certificate.public_key()),
        certificate=certificate.public_bytes(serialization.Encoding.DER),
        proof=b"",
    )
    proof = old_key.sign(signed_content(unsigned), ec.ECDSA(hashes.SHA256()))
    return replace(unsigned, proof=proof)


def is_proved(successor: Successor, authorities: Iterable[x509.Certificate]) -> bool:
    """
    Return whether one of these authorities vouches for a successor.

    Its certificate must be that of an authority, which signs certificates of members
    or agents and no other authority.
    """
    for authority in authorities:
        key = authority.public_key()
        if (
            isinstance(key, ec.EllipticCurvePublicKey)
            and fingerprint_of(key) == successor.replaces
            and _is_root(authority)
        ):
            with contextlib.suppress(InvalidSignature):
                key.verify(
                    successor.proof,
                    signed_content(successor),
                    ec.ECDSA(hashes.SHA256()),
                )
                return _is_authority(successor)
    return False


UNUSABLE = (
    InvalidSignature,
    TypeError,
    UnsupportedAlgorithm,
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for certificates that it cannot use. They are announced by
other members, so any content is possible."""


def _is_authority(successor: Successor) -> bool:
    """Return whether the certificate is what `Authority.create` makes for its key."""
    if successor.fingerprint == successor.replaces:
        return False
    try:
        certificate = x509.load_der_x509_certificate(successor.certificate)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        named = fingerprint_of(certificate.public_key()) == successor.fingerprint
    except UNUSABLE:
        return False
    return (
        named
        and _is_root(certificate)
        and basic.value.ca
        and basic.value.path_length == 0
    )


def _is_root(authority: x509.Certificate) -> bool:
    """
    Return whether an authority has signed itself.

    The certificates of an intermediate one would be trusted for its root's sake, also
    after its successor is alone. So operators replace it.
    """
    try:
        authority.verify_directly_issued_by(authority)
    except UNUSABLE:
        return False
    return True


def accepted(
    successors: Sequence[Successor],
    kind: AuthorityKind,
    certificates: Sequence[x509.Certificate],
) -> tuple[Successor, ...]:
    """
    Return the successors of one kind that a node with these certificates trusts.

    A successor may itself have a successor.
    """
    known = list(certificates)
    found: list[Successor] = []
    waiting = [each for each in successors if each.authority is kind]
    while True:
        # Not one that has a successor: an authority would end with its own.
        ended = {each.replaces for each in found}
        proved = next(
            (
                each
                for each in waiting
                if each.fingerprint not in ended and is_proved(each, known)
            ),
            None,
        )
        if proved is None:
            return tuple(found)
        waiting.remove(proved)
        found.append(proved)
        known.append(x509.load_der_x509_certificate(proved.certificate))


def announced(state: Path) -> tuple[Successor, ...]:
    """
    Return the successors in a node's state; none: it has no state of this format.

    Raises `OSError`: without them, a node would trust an authority that has ended.
    """
    if not state.exists():
        return ()
    try:
        with contextlib.closing(sqlite3.connect(read_only_uri(state), uri=True)) as db:
            # Below feature level 2 a stopped node has no such table.
            known = db.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'authority_successors'"
            ).fetchone()
            return successors_in(db.execute(ALL_SUCCESSORS)) if known else ()
    except sqlite3.Error as error:
        raise OSError(errno.EIO, str(error), str(state)) from error


@dataclass(frozen=True, slots=True)
class Trust:
    """The authorities of one kind that a node trusts."""

    certificates: tuple[x509.Certificate, ...]
    successors: tuple[Successor, ...]
    """Those that it has accepted, the earliest first."""

    @property
    def pem(self) -> bytes:
        """The certificates, PEM."""
        return b"".join(
            each.public_bytes(serialization.Encoding.PEM) for each in self.certificates
        )


def trust(pem: bytes, kind: AuthorityKind, successors: Sequence[Successor]) -> Trust:
    """
    Return what a node trusts whose file has the certificates *pem*.

    An authority whose replacement is finished is trusted no longer, although the
    file still has it. Raises `ValueError`.
    """
    own = x509.load_pem_x509_certificates(pem)
    found = accepted(successors, kind, own)
    gone = {each.replaces for each in found if each.sole}
    every = dict.fromkeys(
        (*own, *(x509.load_der_x509_certificate(each.certificate) for each in found))
    )
    return Trust(
        tuple(each for each in every if fingerprint_of(each.public_key()) not in gone),
        found,
    )


def trusted_pem(config: Config, kind: AuthorityKind, pem: bytes) -> bytes:
    """
    Return what a node trusts, PEM: those in *pem*, its file, and their successors.

    Raises `OSError` and `ValueError`.
    """
    found = announced(config.node.data_dir / STATE)
    return trust(pem, kind, found).pem if found else pem


def is_name(name: str) -> bool:
    """Return whether a file in a bundle is the key or certificate of a successor."""
    return re.fullmatch(r"(members|agents)-[0-9a-f]{16}\.(key|pem)", name) is not None


def ca_file(config: Config, kind: AuthorityKind) -> Path:
    """Return the file with the authorities of one kind."""
    return config.peers.ca if kind is AuthorityKind.MEMBERS else config.agents.ca


class SuccessorFiles:
    """The successors that this node has made: a key and a certificate each."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = config.node.data_dir / FOLDER

    def files(self) -> dict[str, bytes]:
        """Return the keys and certificates that this node has made, by their names."""
        return {
            each.name: each.read_bytes()
            for key in self.key_files()
            for each in (key, key.with_suffix(".pem"))
            if each.exists()
        }

    def put(self, name: str, content: bytes) -> Path:
        """Write a key or certificate that a bundle or another member has. Raises `StartError`."""
        path = self._folder / name
        put(path, content, PRIVATE if path.suffix == ".key" else PUBLIC)
        return path

    def key_files(self) -> tuple[Path, ...]:
        """Return the keys that this node has made."""
        return tuple(sorted(self._folder.glob("*.key")))

    def make(
        self, key: AuthorityKey, node_id: NodeId, now: dt.datetime
    ) -> Successor | None:
        """
        Return the successor of an authority; None: this node lacks its key.

        It is made once: after a crash, what is there is announced again. Raises
        `OSError` and `ValueError`.
        """
        old = self._old_key(key)
        if old is None:
            return None
        stem = self._folder / f"{key.authority}-{key.fingerprint[:16]}"
        path, key_path = stem.with_suffix(".pem"), stem.with_suffix(".key")
        if not path.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._folder.parent)
            name = f"Sparecode {key.authority}-ca {now:%Y-%m-%d}"
            made = Authority.create(name, now=now)
            # The key first: a certificate without its key would be announced.
            write_file(key_path, made.key_pem, PRIVATE)
            write_file(path, made.pem, PUBLIC)
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        return announcement(key.authority, node_id, old, certificate)

    def authority(self, successor: Successor) -> Authority | None:
        """Return a successor with its key; None: another node has made it."""
        for path in self.key_files():
            pem = path.with_suffix(".pem")
            try:
                certificate = x509.load_pem_x509_certificate(pem.read_bytes())
                if fingerprint_of(certificate.public_key()) == successor.fingerprint:
                    return Authority.from_pem(pem.read_bytes(), path.read_bytes())
            except (OSError, ValueError) as error:
                log.warning(
                    "authority_unusable", extra={"file": str(path), "cause": str(error)}
                )
        return None

    def _old_key(self, key: AuthorityKey) -> ec.EllipticCurvePrivateKey | None:
        """Return the private key of an authority that is to be replaced, if it is here."""
        for path in (
            key_beside(ca_file(self._config, key.authority)),
            *self.key_files(),
        ):
            try:
                private = serialization.load_pem_private_key(path.read_bytes(), None)
            except FileNotFoundError:
                continue
            except TypeError as error:  # It has a passphrase.
                raise ValueError(str(error)) from error
            if isinstance(private, ec.EllipticCurvePrivateKey) and (
                fingerprint_of(private.public_key()) == key.fingerprint
            ):
                return private
        return None

# SPDX-License-Identifier: Apache-2.0
"""
Signed statements of members: skip this entry, and no other (E3).

An operator signs with the key of the member's certificate. The signed bytes name the
cluster, the index, the term and the SHA-256 of the entry, so a statement fits no other
entry. The member that signs promises never to apply the entry.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from sparecode_node.domain.agents import Certificate
from sparecode_node.replication.members import MEMBER_URI

FIRST_LINE = b"sparecode skip statement 1\n"
"""Nothing else that a member's key signs begins with this line."""

TEXT_BYTES_MAX = 16 * 1024
"""Of a statement; its certificate with the chain is most of it."""
WORDS_MAX = 300
"""Characters of an operator's name, and of a reason."""

_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


class StatementError(Exception):
    """A statement does not count; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipStatement:
    """What one member's operator has signed."""

    cluster_id: str
    index: int
    term: int
    digest: str
    """SHA-256 of the entry's bytes in the log, in hex."""
    member: str
    operator: str
    """The operator's name, as told: only the member's key is proven."""
    reason: str
    at_ms: int
    certificate: str = ""
    """The member's certificate with its chain, PEM."""
    signature: bytes = b""

    def signed_bytes(self) -> bytes:
        """Return the bytes that the signature is for."""
        content = {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in ("certificate", "signature")
        }
        return FIRST_LINE + json.dumps(
            content, ensure_ascii=True, sort_keys=True, separators=(",", ":")
        ).encode("ascii")

    @property
    def entry(self) -> tuple[str, int, int, str]:
        """The cluster, and index, term and digest of the entry."""
        return self.cluster_id, self.index, self.term, self.digest

    def to_text(self) -> str:
        """Return the statement as JSON."""
        content = {**dataclasses.asdict(self), "signature": self.signature.hex()}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def from_text(text: str) -> SkipStatement:
    """Return the statement of a text; nothing is verified. Raises `StatementError`."""
    if len(text) > TEXT_BYTES_MAX:
        raise StatementError("it is too long")
    try:
        content: dict[str, Any] = json.loads(text)
        signature = bytes.fromhex(content.pop("signature"))
        statement = SkipStatement(**content, signature=signature)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise StatementError("it is not a statement") from error
    for field in dataclasses.fields(SkipStatement):
        if type(getattr(statement, field.name)) is not field.type:
            raise StatementError(f"{field.name} has another type")
    if max(len(statement.operator), len(statement.reason)) > WORDS_MAX:
        raise StatementError(f"a text has more than {WORDS_MAX} characters")
    if not (statement.operator + statement.reason).isprintable():
        raise StatementError("a text has a character that cannot be shown")
    return statement


def digest_of(command: bytes) -> str:
    """Return the digest by which statements name an entry with these bytes."""
    return hashlib.sha256(command).hexdigest()


def sign(statement: SkipStatement, *, certificate: bytes, key: bytes) -> SkipStatement:
    """Return the statement signed with a member's key (PEM). Raises `StatementError`."""
    message = statement.signed_bytes()
    private = load_pem_private_key(key, None)
    match private:
        case ec.EllipticCurvePrivateKey():
            signature = private.sign(message, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPrivateKey():
            signature = private.sign(message, _PSS, hashes.SHA256())
        case ed25519.Ed25519PrivateKey():
            signature = private.sign(message)
        case _:
            raise StatementError("this kind of key cannot sign statements")
    return dataclasses.replace(
        statement, certificate=certificate.decode(), signature=signature
    )


def verify(statement: SkipStatement, authorities: bytes) -> Certificate:
    """
    Return the certificate that signed, as the deny list names it.

    *authorities*: the certificates of the members' authorities, PEM. The certificate
    must have been valid when the statement says that it was signed. Raises
    `StatementError`.
    """
    try:
        leaf, *chain = x509.load_pem_x509_certificates(statement.certificate.encode())
        trusted = x509.load_pem_x509_certificates(authorities)
        at = datetime.fromtimestamp(statement.at_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise StatementError("its certificate cannot be read") from error
    _verify_chain(leaf, chain, trusted, at)
    if _member_of(leaf) != statement.member:
        raise StatementError(f"its certificate is not that of {statement.member}")
    _verify_signature(leaf, statement)
    return Certificate(
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
        serial_number=f"{leaf.serial_number:x}",
    )


def _verify_chain(
    leaf: x509.Certificate,
    chain: Sequence[x509.Certificate],
    trusted: Sequence[x509.Certificate],
    at: datetime,
) -> None:
    policy = (
        PolicyBuilder()
        .store(Store(list(trusted)))
        .time(at)
        # As in TLS between members: an authority of the operator's own need not follow
        # the rules for public web sites.
        .extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca(),
            ee_policy=ExtensionPolicy.permit_all(),
        )
    )
    try:
        policy.build_client_verifier().verify(leaf, list(chain))
    except VerificationError as error:
        raise StatementError(
            "no members' authority of this node has signed its certificate, or it was "
            f"not valid then ({error})"
        ) from error


def _member_of(leaf: x509.Certificate) -> str | None:
    """Return the member id in a certificate, if there is exactly one."""
    try:
        names = leaf.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    ids = [u.removeprefix(MEMBER_URI) for u in uris if u.startswith(MEMBER_URI)]
    return ids[0] if len(ids) == 1 else None


def _verify_signature(leaf: x509.Certificate, statement: SkipStatement) -> None:
    message, signature = statement.signed_bytes(), statement.signature
    public = leaf.public_key()
    try:
        match public:
            case ec.EllipticCurvePublicKey():
                public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                public.verify(signature, message, _PSS, hashes.SHA256())
            case ed25519.Ed25519PublicKey():
                public.verify(signature, message)
            case _:
                raise StatementError("this kind of key cannot sign statements")
    except InvalidSignature as error:
        raise StatementError("its signature is wrong") from error

# SPDX-License-Identifier: Apache-2.0
"""
Join tickets, and the certificate that lets the holder of a ticket connect (P5).

A ticket is a secret of 128 bits. A key and a self-signed certificate are derived from
it, always the same: its *door*. The log holds only the certificate, which is the
verifier; members accept it in a handshake, beside those of their authority. So the
secret is never sent, not even to members, and the key proves possession of the ticket.
The certificate cannot sign others: it admits itself, and no certificate below it.
"""

import datetime as dt
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sparecode_node.domain.ids import NodeId

DOOR_URI = "sparecode://joiner/"

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_DRAWN_BYTES = 48
"""Many more than the order has, so that the remainder is unbiased."""
# The certificate's dates do not matter: the state decides how long a ticket is valid.
_COMMON_NAME_MAX = 64
"""The limit of X.520. An id has up to 63 characters, and a word before it."""
_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_TO = dt.datetime(2120, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTicket:
    """Everything that a node needs to find its cluster and join it, once."""

    secret: bytes = field(repr=False)
    node_id: NodeId
    cluster_id: str
    authorities: tuple[bytes, ...]
    """The members' authorities, DER."""
    members: tuple[tuple[NodeId, str], ...]
    """Members that admit nodes, and their addresses."""
    ends_at_ms: int
    address: str = ""
    """Where the node may join, HOST:PORT; empty: a ticket of release 0.1.0."""
    hosts: tuple[str, ...] = ()
    """Further host names for its certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The certificate and key that a joiner uses in the handshake."""

    certificate: bytes
    """DER."""
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM."""
        return pem((self.certificate,))

    @property
    def key_pem(self) -> bytes:
        """The key in PEM."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def door_of(secret: bytes, node_id: NodeId) -> Door:
    """Return the door of a ticket: the same one for the same ticket."""
    drawn = HKDF(
        algorithm=hashes.SHA256(),
        length=_DRAWN_BYTES,
        salt=None,
        info=b"sparecode/v1/join-ticket/" + node_id.encode(),
    ).derive(secret)
    scalar = int.from_bytes(drawn) % (_P256_ORDER - 1) + 1
    key = ec.derive_private_key(scalar, ec.SECP256R1())
    # For people. The URI, of any length, names the node.
    common = f"joiner {node_id}"[:_COMMON_NAME_MAX]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(_FROM)
        .not_valid_after(_TO)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNS_HANDSHAKES_ALONE, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage((ExtendedKeyUsageOID.CLIENT_AUTH,)), critical=True
        )
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(f"{DOOR_URI}{node_id}")]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return Door(
        certificate=certificate.public_bytes(serialization.Encoding.DER), key=key
    )


def sign(content: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a signature with the key of a ticket's door."""
    return key.sign(content, ec.ECDSA(hashes.SHA256()))


def is_signed(content: bytes, signature: bytes, certificate: bytes) -> bool:
    """Return whether *content* is signed with the key of a door's certificate (DER)."""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def pem(certificates: tuple[bytes, ...]) -> bytes:
    """Return certificates (DER) as PEM, one after the other."""
    return b"".join(
        x509.load_der_x509_certificate(each).public_bytes(serialization.Encoding.PEM)
        for each in certificates
    )


def der(certificates: bytes) -> tuple[bytes, ...]:
    """Return certificates (PEM) as DER, in their order. Raises `ValueError`."""
    return tuple(
        each.public_bytes(serialization.Encoding.DER)
        for each in x509.load_pem_x509_certificates(certificates)
    )


# It cannot sign certificates. Otherwise the holder of a ticket could issue itself a
# certificate of any member.
_SIGNS_HANDSHAKES_ALONE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)

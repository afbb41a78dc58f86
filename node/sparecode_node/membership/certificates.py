# SPDX-License-Identifier: Apache-2.0
"""
Certificates for development and for a single operator.

There are two authorities, because they admit different callers: `members-ca` signs
the nodes (peers listener, and the server side of every listener), `agents-ca` signs
only authentication agents. Their private keys are in the same folder, unencrypted:
anyone who can read the folder can act as any node and any agent. If several people
operate the cluster, they use their own authority, and certificates with the same
subject names:

* member: DNS `ID.members.sparecode`, `localhost`, the given hosts; IP addresses;
  URI `sparecode://member/ID`
* agent: URI `sparecode://agent/NAME`
"""

import datetime as dt
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sparecode_node.durable_files import write_file
from sparecode_node.replication.links.tls import NAME_SUFFIX

MEMBERS_CA = "members-ca"
AGENTS_CA = "agents-ca"
AUTHORITY_DAYS = 3650
LEAF_DAYS = 397

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_MEMBER = re.compile(_LABEL)
_AGENT = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
# The clocks of other machines may be slow by a few minutes.
_BACKDATED = dt.timedelta(minutes=5)


class CertificatesError(Exception):
    """The certificates cannot be created; the message names the reason."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        """Hide the key."""
        return "Issued(***)"


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


class Authority:
    """An authority that signs certificates; EC P-256, SHA-256."""

    def __init__(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, name: str, *, now: dt.datetime) -> "Authority":
        """Create an authority that is valid for ten years from *now*."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + dt.timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes) -> "Authority":
        """Return the authority of these PEM texts. Raises `ValueError`."""
        private = serialization.load_pem_private_key(key, None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError("not an EC key")  # noqa: TRY004 - as for any bad key.
        return cls(x509.load_pem_x509_certificate(certificate), private)

    @property
    def pem(self) -> bytes:
        """The certificate, which others trust, in PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key, in PEM."""
        return _pem(self._key)

    def issue_member(
        self,
        member_id: str,
        *,
        hosts: Iterable[str] = (),
        now: dt.datetime,
        days: float = LEAF_DAYS,
    ) -> Issued:
        """Create a key and sign a certificate for a node, as server and client."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify_member(
            member_id, key.public_key(), hosts=hosts, now=now, days=days
        )
        return Issued(certificate, _pem(key))

    def certify_member(
        self,
        member_id: str,
        key: ec.EllipticCurvePublicKey,
        *,
        hosts: Iterable[str] = (),
        now: dt.datetime,
        days: float = LEAF_DAYS,
    ) -> bytes:
        """Sign a certificate for a node's public key; return it in PEM."""
        if not _MEMBER.fullmatch(member_id):
            raise CertificatesError(
                f"member {member_id!r}: an id has 1 to 63 characters from a-z, 0-9 and -, "
                "and does not start or end with -"
            )
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(f"sparecode://member/{member_id}"),
            x509.DNSName(f"{member_id}{NAME_SUFFIX}"),
        ]
        names += map(_host_name, dict.fromkeys(("localhost", *hosts)))
        usages = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._certify(member_id, key, names, usages, now=now, days=days)

    def issue_agent(
        self, name: str, *, now: dt.datetime, days: float = LEAF_DAYS
    ) -> Issued:
        """Create a key and sign a client certificate for an authentication agent."""
        if not _AGENT.fullmatch(name):
            raise CertificatesError(
                f"agent {name!r}: a name has 1 to 64 characters from a-z, 0-9, '.', '_' "
                "and -, and starts and ends with a letter or digit"
            )
        return self.issue(
            name,
            [x509.UniformResourceIdentifier(f"sparecode://agent/{name}")],
            now=now,
            days=days,
        )

    def issue(
        self,
        common_name: str,
        names: Sequence[x509.GeneralName],
        *,
        now: dt.datetime,
        days: float = LEAF_DAYS,
    ) -> Issued:
        """Create a key and sign a client certificate with any subject names, for tests."""
        usages = (ExtendedKeyUsageOID.CLIENT_AUTH,)
        return self._issue(common_name, names, usages, now=now, days=days)

    def _issue(
        self,
        common_name: str,
        names: Sequence[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier],
        *,
        now: dt.datetime,
        days: float,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certify(
            common_name, key.public_key(), names, usages, now=now, days=days
        )
        return Issued(certificate, _pem(key))

    def _certify(
        self,
        common_name: str,
        public: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier],
        *,
        now: dt.datetime,
        days: float,
    ) -> bytes:
        starts_at = now - _BACKDATED
        builder = (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
            )
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(starts_at, now + dt.timedelta(days=days - 1)))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(
                x509.BasicConstraints(ca=False, path_length=None), critical=True
            )
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(public), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    self._key.public_key()
                ),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(names), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if host.lower().endswith(NAME_SUFFIX):
            # A node with this name could answer in place of that member.
            raise CertificatesError(
                f"host {host!r}: reserved for the member with that id; leave it out"
            ) from None
        if _HOST.fullmatch(host.lower()):
            return x509.DNSName(host.lower())
        raise CertificatesError(
            f"host {host!r}: not an IP address or a host name"
        ) from None


def write_certificates(
    directory: Path,
    *,
    members: Sequence[str] = (),
    agents: Sequence[str] = (),
    hosts: Sequence[str] = (),
    force: bool = False,
    now: dt.datetime,
    days: float = LEAF_DAYS,
) -> tuple[Path, ...]:
    """
    Write certificates (`NAME.pem`) and keys (`NAME.key`, mode 0600) to *directory*.

    The first call creates the authorities. Later calls use them to add nodes and
    agents. Existing files are overwritten only with *force*, and a node keeps its key, by
    which the other members know it (P5a): that of its key file, or of its certificate. A
    key that cannot be used is not replaced.
    The authorities are never overwritten, because the certificates that they signed are
    in use.
    Returns the files written. Raises `CertificatesError`.
    """
    names = (*members, *agents)
    for name in names:
        if names.count(name) > 1 or name in (MEMBERS_CA, AGENTS_CA):
            raise CertificatesError(
                f"{name}: every member and agent needs a different name, and "
                f"{MEMBERS_CA} and {AGENTS_CA} are reserved"
            )
        for path in _paths(directory, name):
            if path.exists() and not force:
                raise CertificatesError(f"{path} exists: use --force to replace it")
    members_ca, files = _open_authority(directory, MEMBERS_CA, now=now)
    agents_ca, more = _open_authority(directory, AGENTS_CA, now=now)
    files += more
    for member in members:
        key = _present_key(directory, member)
        if key is None:
            issued = members_ca.issue_member(member, hosts=hosts, now=now, days=days)
            files += _files(directory, member, issued)
            continue
        certificate = members_ca.certify_member(
            member, key, hosts=hosts, now=now, days=days
        )
        files.append(_File(_paths(directory, member)[0], certificate, 0o644))
    for agent in agents:
        files += _files(
            directory, agent, agents_ca.issue_agent(agent, now=now, days=days)
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in files:
            write_file(file.path, file.content, file.mode)
    except OSError as error:
        raise CertificatesError(f"{error.filename}: {error.strerror}") from error
    return tuple(file.path for file in files)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    content: bytes
    mode: int


def _paths(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}.pem", directory / f"{name}.key"


def _present_key(directory: Path, member: str) -> ec.EllipticCurvePublicKey | None:
    """
    Return the public key of a node's files; None: there are none.

    A key that cannot be used stays where it is, since the other members know the node by
    it (P5a), and it cannot be made again.
    """
    certificate, key = _paths(directory, member)
    path = key if key.exists() else certificate
    if not path.exists():
        return None
    try:
        pem = path.read_bytes()
        present = (
            serialization.load_pem_private_key(pem, None).public_key()
            if path == key
            else x509.load_pem_x509_certificate(pem).public_key()
        )
    except OSError as error:
        raise _unusable(path, member, error.strerror or "unreadable") from error
    except TypeError as error:  # It is what a missing passphrase raises.
        raise _unusable(path, member, "its key is encrypted") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(path, member, "it holds no key in PEM") from error
    if not isinstance(present, ec.EllipticCurvePublicKey):
        raise _unusable(path, member, "its key is not an EC key")
    return present


def _unusable(path: Path, member: str, cause: str) -> CertificatesError:
    return CertificatesError(
        f"{path} cannot be used: {cause}. The other members know {member} by its key, so "
        "it is not replaced: put a usable copy there. To give the node a new key, move "
        f"the files of {member} to another folder first; the other members then have to "
        "accept it (docs/runbooks/expired-certificates.md)"
    )


def _open_authority(
    directory: Path, name: str, *, now: dt.datetime
) -> tuple[Authority, list[_File]]:
    """Return the authority in *directory*, or a new one and its files."""
    certificate, key = _paths(directory, name)
    if certificate.exists() != key.exists():
        missing = key if certificate.exists() else certificate
        raise CertificatesError(
            f"{missing} is missing: restore it, or use an empty folder"
        )
    if certificate.exists():
        try:
            return Authority.from_pem(certificate.read_bytes(), key.read_bytes()), []
        except OSError as error:
            raise CertificatesError(f"{error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise CertificatesError(f"{certificate} and {key}: {error}") from error
    authority = Authority.create(f"Sparecode {name} (development)", now=now)
    issued = Issued(authority.pem, authority.key_pem)
    return authority, _files(directory, name, issued)


def _files(directory: Path, name: str, issued: Issued) -> list[_File]:
    certificate, key = _paths(directory, name)
    return [
        _File(certificate, issued.certificate, 0o644),
        _File(key, issued.key, 0o600),
    ]

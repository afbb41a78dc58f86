# SPDX-License-Identifier: Apache-2.0
"""Development certificates grant one role each, and overwrite no file."""

import datetime as dt
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from sparecode_node.durable_files import write_file
from sparecode_node.membership.certificates import (
    CertificatesError,
    write_certificates,
)
from sparecode_node.replication.members import key_in

NOW = dt.datetime(2026, 3, 4, 5, 6, tzinfo=dt.UTC)


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(certificate: x509.Certificate, kind: type[x509.GeneralName]) -> list[str]:
    extension = certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return [str(value) for value in extension.value.get_values_for_type(kind)]


def usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return set(
        certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    )


def write(directory: Path, **arguments) -> tuple[Path, ...]:
    return write_certificates(directory, now=NOW, **arguments)


def test_member_certificate_names_the_member_and_its_hosts(tmp_path):
    write(tmp_path, members=["n1"], hosts=["127.0.0.1", "::1", "a.example", "b"])
    certificate = load(tmp_path / "n1.pem")
    assert names(certificate, x509.UniformResourceIdentifier) == [
        "sparecode://member/n1"
    ]
    assert names(certificate, x509.DNSName) == [
        "n1.members.sparecode",
        "localhost",
        "a.example",
        "b",
    ]
    assert names(certificate, x509.IPAddress) == ["127.0.0.1", "::1"]
    assert usages(certificate) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    certificate.verify_directly_issued_by(load(tmp_path / "members-ca.pem"))


def test_agent_certificate_names_the_agent_only_and_cannot_serve(tmp_path):
    write(tmp_path, agents=["vpn"], hosts=["127.0.0.1"])
    certificate = load(tmp_path / "vpn.pem")
    assert names(certificate, x509.UniformResourceIdentifier) == [
        "sparecode://agent/vpn"
    ]
    assert names(certificate, x509.DNSName) == []
    assert names(certificate, x509.IPAddress) == []
    assert usages(certificate) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    certificate.verify_directly_issued_by(load(tmp_path / "agents-ca.pem"))
    with pytest.raises(ValueError, match="Issuer"):
        certificate.verify_directly_issued_by(load(tmp_path / "members-ca.pem"))


def test_keys_are_readable_by_their_owner_only(tmp_path):
    directory = tmp_path / "certificates"
    written = write(directory, members=["n1"], agents=["vpn"])
    keys = {path.name for path in written if path.suffix == ".key"}
    assert keys == {"members-ca.key", "agents-ca.key", "n1.key", "vpn.key"}
    assert {(directory / key).stat().st_mode & 0o777 for key in keys} == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in directory.iterdir()} == {
        path.name for path in written
    }


def test_a_file_is_on_disk_before_the_next_one_is_written(tmp_path, monkeypatch):
    """A joining node writes its members, then its ring, which shows that all are there."""
    synced, sync = [], os.fsync

    def noted(descriptor):
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_file(tmp_path / "members.json", b"{}", 0o600)
    assert synced == [str(tmp_path / ".members.json.new"), str(tmp_path)]
    assert (tmp_path / "members.json").read_bytes() == b"{}"


def test_key_belongs_to_its_certificate(tmp_path):
    write(tmp_path, members=["n1"])
    key = serialization.load_pem_private_key((tmp_path / "n1.key").read_bytes(), None)
    assert key.public_key() == load(tmp_path / "n1.pem").public_key()


def test_authority_signs_leaves_and_no_further_authority(tmp_path):
    write(tmp_path)
    extensions = load(tmp_path / "members-ca.pem").extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    key_usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    assert key_usage.key_cert_sign
    assert not key_usage.digital_signature


def test_later_call_adds_to_the_same_authorities(tmp_path):
    write(tmp_path, members=["n1"])
    before = (tmp_path / "members-ca.pem").read_bytes()
    written = write(tmp_path, members=["n2"], agents=["vpn"])
    assert {path.name for path in written} == {
        "n2.pem",
        "n2.key",
        "vpn.pem",
        "vpn.key",
    }
    assert (tmp_path / "members-ca.pem").read_bytes() == before


def test_nothing_is_overwritten_without_force(tmp_path):
    write(tmp_path, members=["n1"])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CertificatesError, match=r"n1\.pem exists: use --force"):
        write(tmp_path, members=["n0", "n1"])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    write(tmp_path, members=["n1"], force=True)
    changed = {p.name for p in tmp_path.iterdir() if p.read_bytes() != before[p]}
    assert changed == {"n1.pem"}


@pytest.mark.parametrize("lost", ["n1.pem", "n1.key"])
def test_a_node_keeps_its_key(tmp_path, lost):
    """(P5a) By its key file or its old certificate; the other members know it by it."""
    write(tmp_path, members=["n1"])
    key = key_in((tmp_path / "n1.pem").read_bytes())
    (tmp_path / lost).unlink()
    written = write(tmp_path, members=["n1"], force=True)
    assert [path.name for path in written] == ["n1.pem"]
    assert key_in((tmp_path / "n1.pem").read_bytes()) == key


RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def key_pem(key, passphrase=b""):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (key_pem(EC_KEY, b"a passphrase"), "its key is encrypted"),
        (key_pem(RSA_KEY), "its key is not an EC key"),
        (b"not a key", "it holds no key"),
        (b"", "it holds no key"),
        (None, "Is a directory"),
    ],
)
@pytest.mark.parametrize("lost", ["n1.pem", ""])
def test_a_key_that_cannot_be_used_is_not_replaced(tmp_path, content, words, lost):
    """(P5a) It cannot be made again, and the other members know the node by it."""
    write(tmp_path, members=["n1"])
    key = tmp_path / "n1.key"
    key.unlink()
    if content is None:
        key.mkdir()
    else:
        key.write_bytes(content)
    if lost:
        (tmp_path / lost).unlink()
    before = contents(tmp_path)
    with pytest.raises(CertificatesError, match=f"n1.key cannot be used: {words}"):
        write(tmp_path, members=["n0", "n1"], force=True)
    assert contents(tmp_path) == before
    key.rename(tmp_path / "n1.key.kept")
    (tmp_path / "n1.pem").unlink(missing_ok=True)
    write(tmp_path, members=["n1"], force=True)
    assert key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY")


def test_a_certificate_that_cannot_be_read_is_not_replaced(tmp_path):
    """(P5a) It may be the only copy of the key that a node elsewhere shows."""
    write(tmp_path, members=["n1"])
    (tmp_path / "n1.key").unlink()
    (tmp_path / "n1.pem").write_text("cut off")
    before = contents(tmp_path)
    with pytest.raises(CertificatesError, match=r"n1\.pem cannot be used"):
        write(tmp_path, members=["n1"], force=True)
    assert contents(tmp_path) == before


def contents(folder):
    return {each: each.read_bytes() for each in folder.iterdir() if each.is_file()}


def test_certificates_are_valid_now_and_expire(tmp_path):
    write(tmp_path, members=["n1"], days=30)
    certificate = load(tmp_path / "n1.pem")
    assert certificate.not_valid_before_utc < NOW
    assert certificate.not_valid_after_utc == NOW + dt.timedelta(days=30)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": ["N1"]}, "member 'N1'"),
        ({"members": ["a.b"]}, "member 'a.b'"),
        ({"members": ["../n1"]}, "member '../n1'"),
        ({"agents": ["a/b"]}, "agent 'a/b'"),
        ({"members": ["n1"], "hosts": ["a b"]}, "host 'a b'"),
        (
            {"members": ["n1"], "hosts": ["N2.members.sparecode"]},
            "reserved for the member",
        ),
        ({"members": ["n1"], "agents": ["n1"]}, "n1: every member and agent"),
        ({"members": ["members-ca"]}, "members-ca: every member and agent"),
    ],
)
def test_bad_names_are_refused(tmp_path, arguments, message):
    with pytest.raises(CertificatesError, match=message.replace(".", r"\.")):
        write(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_half_an_authority_is_not_replaced(tmp_path):
    write(tmp_path)
    (tmp_path / "agents-ca.key").unlink()
    with pytest.raises(CertificatesError, match=r"agents-ca\.key is missing"):
        write(tmp_path, members=["n1"])

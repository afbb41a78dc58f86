# SPDX-License-Identifier: Apache-2.0
"""Machines with nothing but a `node.toml`: a cluster begins, and nodes join by tickets."""

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.certificates import Authority
from sparecode_node.rpc.tickets import from_text, to_text
from sparecode_node.services.secrets.tickets import door_of
from tests.system.machines import Site, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Begin a cluster of one, for the tests of this module."""
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        site.start_cluster()
        yield site
    finally:
        site.kill()


def audited(site: Site) -> list[tuple[str, str, str, str]]:
    """Return the audit events of membership: actor, action, target, outcome."""
    done = site.admin("audit", "list", "--output", "json", "--limit", "500")
    assert done.returncode == 0, done.stderr
    return [
        (each["actor"], each["action"], each["target"], each["outcome"])
        for each in json.loads(done.stdout)["events"]
    ]


def test_the_first_node_makes_an_authority_of_its_own(site: Site) -> None:
    """(P4, P5) Keys are for their owner alone, and nothing is made over."""
    n1 = site.machines["n1"]
    for name in ("members-ca.key", "agents-ca.key", "node.key"):
        assert (n1.directory / "tls" / name).stat().st_mode & 0o777 == 0o600
    again = site.node(n1, "init", "--new-authority")
    assert again.returncode == 1
    assert "belongs to a cluster already" in again.stderr
    other = site.machine("n0")
    (other.directory / "tls").mkdir()
    (other.directory / "tls/members-ca.pem").write_text("another authority's")
    password = site.directory / "password"
    refused = site.node(
        other,
        "init",
        "--new-authority",
        "--administrator=x",
        f"--password-file={password}",
    )
    assert refused.returncode == 1
    assert "the cluster has an authority already" in refused.stderr
    assert not (other.directory / "keyring.json").exists()


def test_a_ticket_admits_one_node_once(site: Site) -> None:
    """(P5) What was given lets it be a member; the second try is refused in words."""
    n2 = site.machine("n2")
    ticket = site.ticket(n2, "--host=n2.example")
    refused = site.node(n2, "init", f"--join={ticket}", "--host=n1.example")
    assert refused.returncode == 1
    assert "the ticket is not for n1.example" in " ".join(refused.stderr.split())
    joined = site.node(n2, "init", f"--join={ticket}")
    assert joined.returncode == 0, joined.stderr
    assert "was admitted to cluster" in joined.stdout
    n1 = site.machines["n1"]
    assert n2.key_ring.read_bytes() == n1.key_ring.read_bytes()
    assert n2.key_ring.stat().st_mode & 0o777 == 0o600
    tls = n2.directory / "tls"
    for name in ("members-ca.pem", "agents-ca.pem"):
        ours, first = tls / name, n1.directory / "tls" / name
        assert ours.read_bytes() == first.read_bytes()
        assert ours.stat().st_mode == first.stat().st_mode
        assert not ours.with_suffix(".key").exists()
    certificate = x509.load_pem_x509_certificate((tls / "node.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value
    assert "n2.example" in names.get_values_for_type(x509.DNSName)
    listed = site.admin("cluster", "members").stdout
    [line] = [line for line in listed.splitlines() if line.startswith("n2 ")]
    assert line.split()[1:] in (  # It is fed as soon as the primary has seen it.
        ["admitted", n2.peers_address],
        ["learner", n2.peers_address],
    )

    thief = site.machine("n2", "thief")
    again = site.node(thief, "init", f"--join={ticket}")
    assert again.returncode == 1
    assert "was already used" in again.stderr
    assert not thief.key_ring.exists()
    events = audited(site)
    assert ("joiner:n2", "AdmitNode", "n2", "applied") in events
    assert ("joiner:n2", "AdmitNode", "n2", "refused") in events


def test_a_joiner_that_is_interrupted_goes_on_with_the_same_ticket(site: Site) -> None:
    """Its key is there before it asks: the ticket is good for that key."""
    n3 = site.machine("n3")
    ticket = site.ticket(n3)
    joined = site.node(n3, "init", f"--join={ticket}")
    assert joined.returncode == 0, joined.stderr
    for lost in ("keyring.json", "data/members.json", "tls/node.pem"):
        (n3.directory / lost).unlink()
    assert site.node(n3, "init", f"--join={ticket}").returncode == 0
    assert n3.key_ring.exists()


def test_what_is_wrong_is_said_before_anything_is_written(site: Site) -> None:
    """(P5) Another node's ticket, another cluster's, half a ticket, none."""
    ticket = site.ticket(site.machine("n4"))
    n5 = site.machine("n5")
    untouched = sorted(n5.directory.iterdir())
    file = site.directory / "ticket"
    for argument, says in (
        (ticket, "the ticket is for node n4, but this is n5"),
        (ticket[:100], "incomplete"),
        (str(file), "No such file"),
    ):
        refused = site.node(n5, "init", f"--join={argument}")
        assert refused.returncode == 1
        assert says in refused.stderr, refused.stderr
        assert ticket[40:60] not in refused.stderr
        assert sorted(n5.directory.iterdir()) == untouched
    file.write_text(f"{site.ticket(n5)}\n")
    (n5.directory / "tls").mkdir()
    foreign = n5.directory / "tls/members-ca.pem"
    foreign.write_bytes(
        x509.load_der_x509_certificate(
            door_of(b"x" * 16, "n5").certificate
        ).public_bytes(Encoding.PEM)
    )
    refused = site.node(n5, "init", f"--join={file}")
    assert "of another cluster" in " ".join(refused.stderr.split())
    foreign.unlink()
    assert site.node(n5, "init", f"--join={file}").returncode == 0
    usage = site.node(n5, "init", f"--join={file}", "--new-authority")
    assert usage.returncode == 2


def test_a_ticket_that_no_member_knows_gets_no_further_than_the_handshake(
    site: Site,
) -> None:
    """(U1) The joiner is told what to check; the member's security log records it."""
    n6 = site.machine("n6")
    older = site.ticket(n6)
    site.ticket(n6)
    refused = site.node(n6, "init", f"--join={older}")
    assert refused.returncode == 1
    assert "replaced by a newer one" in refused.stderr
    log = site.machines["n1"].log.read_text()
    assert "TLS" in log or "handshake" in log.lower()


def test_no_ticket_and_no_ring_is_in_what_nodes_leave_behind(site: Site) -> None:
    """(P5) Canary: logs, journal, database; the log holds verifiers only."""
    n7 = site.machine("n7")
    ticket = site.ticket(n7)
    secret = from_text(ticket).secret
    assert site.node(n7, "init", f"--join={ticket}").returncode == 0
    n1 = site.machines["n1"]
    ring = json.loads(n1.key_ring.read_text())
    keys = [json.dumps(each) for each in _texts(ring) if len(each) > 40]
    assert keys
    needles = [
        secret,
        secret.hex().encode(),
        ticket[30:90].encode(),
        *(each.strip('"').encode() for each in keys),
    ]
    for path in _files(n1.directory / "data", n1.log, n7.directory / "data"):
        content = path.read_bytes()
        for needle in needles:
            assert needle not in content, path


def test_a_member_without_the_authority_helps_others_and_itself(site: Site) -> None:
    """(P5) It passes a joiner on to the member that signs, and renews its certificate."""
    n2, n8 = site.machines["n2"], site.machine("n8")
    n2.start()
    until(lambda: " voter " in site.admin("cluster", "members").stdout.split("n2 ")[-1])
    ticket = from_text(site.ticket(n8))
    only_n2 = replace(ticket, members=((NodeId("n2"), n2.peers_address),))
    joined = site.node(n8, "init", f"--join={to_text(only_n2)}")
    assert joined.returncode == 0, joined.stderr
    assert (n8.directory / "tls/node.pem").exists()
    file = n2.directory / "tls/node.pem"
    before = x509.load_pem_x509_certificate(file.read_bytes())
    renewed = site.node(n2, "renew-certificate")
    assert renewed.returncode == 0, renewed.stderr
    assert "signed by n1" in renewed.stdout
    after = x509.load_pem_x509_certificate(file.read_bytes())
    assert after.serial_number != before.serial_number
    assert after.public_key() == before.public_key()
    assert set(names_of(after)) == set(names_of(before))

    tls = site.machines["n1"].directory / "tls"
    signer = Authority.from_pem(
        (tls / "members-ca.pem").read_bytes(), (tls / "members-ca.key").read_bytes()
    )
    now = dt.datetime.now(dt.UTC)
    key = after.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    good = file.read_bytes()
    file.write_bytes(signer.certify_member("n2", key, now=now, days=-1))
    refused = site.node(n2, "renew-certificate")
    file.write_bytes(good)
    assert refused.returncode == 1
    assert "has expired, so the members refuse this node" in refused.stderr
    assert "docs/runbooks/expired-certificates.md" in refused.stderr


def names_of(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    """Return the subject names of a certificate."""
    return certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value


def _texts(value: object) -> list[str]:
    """Return every text in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return []


def _files(*places: Path) -> list[Path]:
    results = []
    for place in places:
        results += (
            [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
        )
    return results

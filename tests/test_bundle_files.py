# SPDX-License-Identifier: Apache-2.0
"""What a machine without any file gets from a recovery bundle, before it starts."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from sparecode_node.config import Config, load_config
from sparecode_node.membership.authority import FileAuthority
from sparecode_node.membership.bundle_files import (
    authority_files,
    keep_others,
    new_files,
    restored_files,
)
from sparecode_node.membership.files import key_beside, put
from sparecode_node.membership.founder import make_authorities, new_authorities
from sparecode_node.membership.preparation import StartError
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster.bundles import Bundle
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.tool.doctor.files import check_certificates
from sparecode_node.tool.doctor.findings import Verdict

NOW = dt.datetime.now(dt.UTC)
RING = KeyRing.draw(SystemEntropy())


def machine(
    folder: Path, *, node_id: str = "n1", one_authority: bool = False
) -> Config:
    """Return the configuration of a machine with a `node.toml` and nothing else."""
    folder.mkdir()
    agents_ca = "members-ca.pem" if one_authority else "agents-ca.pem"
    listeners = "\n".join(
        f'[{name}]\nlisten = "127.0.0.1:{port}"\ncertificate = "tls/node.pem"\n'
        f'key = "tls/node.key"\n{ca}'
        for name, port, ca in (
            ("agents", 1, f'ca = "tls/{agents_ca}"\n'),
            ("peers", 2, 'ca = "tls/members-ca.pem"\n'),
            ("admin", 3, ""),
        )
    )
    (folder / "node.toml").write_text(
        f'[node]\nid = "{node_id}"\ndata_dir = "data"\n{listeners}\n'
        f'[cluster.members]\n{node_id} = "{node_id}.example:7301"\n'
        '[keys]\nfile = "ring.json"\n'
    )
    return load_config(folder / "node.toml")


def write(config: Config, bundle: Bundle, hosts: Sequence[str] = ()) -> None:
    for each in restored_files(config, bundle, hosts=hosts, now=NOW):
        put(each.path, each.content, each.mode)


@pytest.fixture
def lost(tmp_path: Path) -> Config:
    config = machine(tmp_path / "lost")
    make_authorities(config, hosts=(), now=NOW)
    return config


@pytest.fixture
def new(tmp_path: Path) -> Config:
    return machine(tmp_path / "new", node_id="n7")


@pytest.mark.parametrize("one_authority", [False, True])
def test_bundle_has_all_files_that_a_start_needs(
    tmp_path: Path, one_authority: bool
) -> None:
    """(P5) Earlier certificates stay valid, and the new node signs further ones."""
    lost = machine(tmp_path / "lost", one_authority=one_authority)
    make_authorities(lost, hosts=(), now=NOW)
    new = machine(tmp_path / "new", node_id="n7", one_authority=one_authority)
    bundle = Bundle(ring=RING, files=authority_files(lost))

    write(new, bundle, hosts=("auth.example",))

    for ours, theirs in (
        (new.peers.ca, lost.peers.ca),
        (new.agents.ca, lost.agents.ca),
    ):
        assert ours.read_bytes() == theirs.read_bytes()
        assert key_beside(ours).read_bytes() == key_beside(theirs).read_bytes()
        assert key_beside(ours).stat().st_mode & 0o777 == 0o600
    assert FileAuthority(new).can_sign()
    assert {each.verdict for each in check_certificates(new, NOW)} == {Verdict.OK}
    certificate = x509.load_pem_x509_certificate(new.admin.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert {"n7.example", "auth.example", "n7.members.sparecode"} <= set(
        names.value.get_values_for_type(x509.DNSName)
    )
    assert restored_files(new, bundle, hosts=(), now=NOW) == []
    assert keep_others(new, bundle) is None


def test_bundle_of_the_first_release_needs_the_certificates(
    lost: Config, new: Config
) -> None:
    """It has the keys, by the names of their files."""
    files = authority_files(lost)
    bundle = Bundle(
        ring=RING, files={name: files[name] for name in files if name.endswith(".key")}
    )
    with pytest.raises(StartError, match=r"members-ca\.pem is missing.*copy it from"):
        write(new, bundle)
    assert not new.peers.ca.parent.exists()
    put(new.peers.ca, lost.peers.ca.read_bytes(), 0o644)
    put(new.agents.ca, lost.agents.ca.read_bytes(), 0o644)
    write(new, bundle)
    assert FileAuthority(new).can_sign()
    assert {each.verdict for each in check_certificates(new, NOW)} == {Verdict.OK}


def test_an_authority_of_ones_own_signs_the_nodes_certificate(
    lost: Config, new: Config
) -> None:
    """Its key was on no node, so the bundle cannot have it."""
    for ca in (lost.peers.ca, lost.agents.ca):
        key_beside(ca).unlink()
    bundle = Bundle(ring=RING, files=authority_files(lost))
    with pytest.raises(StartError, match=r"node\.pem is missing.*sign a certificate"):
        write(new, bundle)
    put(new.peers.certificate, b"a certificate", 0o644)
    put(new.peers.key, b"its key", 0o600)
    write(new, bundle)
    assert new.peers.certificate.read_bytes() == b"a certificate"
    assert new.agents.ca.read_bytes() == lost.agents.ca.read_bytes()
    assert not key_beside(new.peers.ca).exists()


def test_new_authorities_take_the_place_of_lost_ones(new: Config) -> None:
    for each in new_authorities(new, hosts=(), now=NOW):
        put(each.path, each.content, each.mode)
    assert restored_files(new, Bundle(ring=RING), hosts=(), now=NOW) == []
    with pytest.raises(StartError, match="exists: the cluster has an authority"):
        new_authorities(new, hosts=(), now=NOW)


@pytest.mark.parametrize("one_authority", [False, True])
def test_new_authorities_are_refused_if_the_bundle_has_them(
    tmp_path: Path, one_authority: bool
) -> None:
    """Each file that a restore needs, and no other, makes the difference."""
    lost = machine(tmp_path / "lost", one_authority=one_authority)
    make_authorities(lost, hosts=(), now=NOW)
    new = machine(tmp_path / "new", node_id="n7", one_authority=one_authority)
    files = authority_files(lost)
    with pytest.raises(StartError, match="has the cluster's authorities: omit"):
        new_files(new, Bundle(ring=RING, files=files), hosts=(), now=NOW)
    members_key = {name for name in files if files[name] == files["members-ca.key"]}
    for lacking in ({"members-ca.pem"}, {"agents-ca.pem"}, members_key):
        rest = {name: files[name] for name in files if name not in lacking}
        assert new_files(new, Bundle(ring=RING, files=rest), hosts=(), now=NOW)
        with pytest.raises(StartError, match="--new-authority"):
            write(new, Bundle(ring=RING, files=rest))
    without_agents_key = {**files}
    if not one_authority:
        del without_agents_key["agents-ca.key"]
    with pytest.raises(StartError, match="omit --new-authority"):
        new_files(new, Bundle(ring=RING, files=without_agents_key), hosts=(), now=NOW)
    write(new, Bundle(ring=RING, files=without_agents_key))


def test_clients_authority_is_restored_and_other_files_are_kept(
    lost: Config, new: Config
) -> None:
    authority = lost.path.parent / "tls/clients.pem"
    authority.write_bytes(b"an authority of administrators")
    lost = replace(lost, admin=replace(lost.admin, ca=authority))
    new = replace(
        new, admin=replace(new.admin, ca=new.path.parent / "tls/administrators.pem")
    )
    other = {"notes.txt": b"where the spare machine is"}
    bundle = Bundle(ring=RING, files={**authority_files(lost), **other})
    without = {
        name: content
        for name, content in bundle.files.items()
        if name != "clients-ca.pem"
    }
    with pytest.raises(StartError, match=r"administrators\.pem is missing") as refusal:
        write(new, Bundle(ring=RING, files=without))
    assert "--new-authority" not in str(refusal.value)  # It makes no such authority.
    write(new, bundle)
    assert new.admin.ca is not None
    assert new.admin.ca.read_bytes() == authority.read_bytes()
    folder = keep_others(new, bundle)
    assert folder is not None
    (kept,) = folder.iterdir()
    assert (kept.name, kept.read_bytes()) == ("notes.txt", other["notes.txt"])
    assert kept.stat().st_mode & 0o777 == 0o600

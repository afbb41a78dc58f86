# SPDX-License-Identifier: Apache-2.0
"""The files of a member: which exist, which match, and how the node starts."""

import datetime as dt
import json
from pathlib import Path

import pytest

from sparecode_node.config import Config, load_config
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.authority import FileAuthority
from sparecode_node.membership.certificates import Authority
from sparecode_node.membership.files import missing_pairs
from sparecode_node.membership.founder import make_authorities
from sparecode_node.membership.joiner import begin_beside
from sparecode_node.membership.preparation import MEMBERS, StartError, first_members
from sparecode_node.replication.members import Configuration, Member, MemberRole
from sparecode_node.replication.offline.inspection import JournalFacts
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.tool.doctor.findings import Finding, Verdict
from sparecode_node.tool.doctor.membership import (
    check_authority,
    check_membership,
    other_members,
)

NOW = dt.datetime.now(dt.UTC)
N1, N2 = NodeId("n1"), NodeId("n2")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Write node.toml for a single node, with a certificate for each listener."""
    listeners = "\n".join(
        f'[{name}]\nlisten = "127.0.0.1:{port}"\ncertificate = "{name}.pem"\n'
        f'key = "{name}.key"\n{ca}'
        for name, port, ca in (
            ("agents", 1, 'ca = "agents-ca.pem"\n'),
            ("peers", 2, 'ca = "members-ca.pem"\n'),
            ("admin", 3, ""),
        )
    )
    path = tmp_path / "node.toml"
    path.write_text(
        f'[node]\nid = "n1"\ndata_dir = "data"\n{listeners}\n'
        '[cluster.members]\nn1 = "n1.example:7301"\n[keys]\nfile = "ring.json"\n'
    )
    (tmp_path / "data").mkdir()
    return load_config(path)


def write_members(config: Config, content: object) -> None:
    path = config.node.data_dir / MEMBERS
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_node_starts_with_the_members_it_joined(config: Config) -> None:
    """They count only for that cluster: a later one has other members (E2)."""
    first = first_members(config, "c1")
    assert (dict(first.members), first.joins) == ({"n1": "n1.example:7301"}, False)
    write_members(config, {"cluster_id": "c1", "members": {"n2": "h:1", "n1": "old:1"}})
    first = first_members(config, "c1")
    assert dict(first.members) == {"n2": "h:1", "n1": "n1.example:7301"}
    assert first.joins
    restored = first_members(config, "c2")
    assert (dict(restored.members), restored.joins) == (
        {"n1": "n1.example:7301"},
        False,
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cluster_id": "c1"}', "7"])
def test_a_damaged_file_of_members_is_refused(config: Config, content: str) -> None:
    """A node that ignored the damaged file would begin a new cluster."""
    write_members(config, content)
    with pytest.raises(
        StartError, match="not the output of `sparecode-node init --join`"
    ):
        first_members(config, "c1")


def test_half_a_pair_is_refused(config: Config) -> None:
    assert len(missing_pairs(config)) == 3
    config.peers.certificate.write_text("certificate")
    with pytest.raises(StartError, match=r"\[peers\] .*peers.key does not"):
        missing_pairs(config)
    config.peers.key.write_text("key")
    assert len(missing_pairs(config)) == 2


def test_a_node_added_beside_members_needs_all_files(config: Config) -> None:
    """With a file missing, it would be refused, or begin a new cluster."""
    members = {N2: "h:2"}
    with pytest.raises(StartError, match=r"peers\.pem is missing"):
        begin_beside(config, members)
    make_authorities(config, hosts=(), now=NOW)
    with pytest.raises(
        StartError, match=r"ring.json.*provide the key ring of the cluster"
    ):
        begin_beside(config, members)
    ring = KeyRing.draw(SystemEntropy())
    ring.save(config.keys_file)
    begin_beside(config, members)
    first = first_members(config, ring.cluster_id)
    assert first.joins
    assert dict(first.members) == {"n1": "n1.example:7301", "n2": "h:2"}


def test_a_node_with_the_authoritys_key_signs(config: Config) -> None:
    make_authorities(config, hosts=(), now=NOW)
    assert FileAuthority(config).can_sign()
    assert check_authority(config).verdict is Verdict.OK
    key = config.peers.ca.with_suffix(".key")
    key.write_bytes(Authority.create("another", now=NOW).key_pem)
    assert not FileAuthority(config).can_sign()
    assert check_authority(config).verdict is Verdict.FAIL
    key.unlink()
    assert not FileAuthority(config).can_sign()
    assert "from another member" in check_authority(config).words


def journal(configuration: Configuration) -> JournalFacts:
    return JournalFacts(
        cluster_id="c1",
        node_id="n1",
        first_index=1,
        last_index=1,
        unfinished_bytes=0,
        configuration=configuration,
    )


def verdict(configuration: Configuration) -> tuple[Verdict, str]:
    result: list[Finding] = list(check_membership(journal(configuration), N1))
    (only,) = result
    return only.verdict, only.words


def test_doctor_names_learners_and_removed_nodes() -> None:
    voter = Member(node_id=N2, address="h:2")
    learner = Member(node_id=N1, address="h:1", role=MemberRole.LEARNER)
    for configuration, expected, words in (
        (Configuration.of((voter, learner)), Verdict.WARN, "is a learner"),
        (Configuration.of((voter,)), Verdict.WARN, "not a member yet"),
        (Configuration.of((voter,), [N1]), Verdict.FAIL, "with another id"),
        (
            Configuration.of((voter, Member(node_id=N1, address="h:1"))),
            Verdict.OK,
            "voters are n1, n2",
        ),
    ):
        result, text = verdict(configuration)
        assert result is expected
        assert words in text
    assert list(check_membership(None, N1)) == []


def test_doctor_checks_the_present_members(config: Config) -> None:
    """The journal names them, or the file of `init --join`; node.toml may be outdated."""
    members = Configuration.of(
        (Member(node_id=N1, address="h:1"), Member(node_id=N2, address="h:2"))
    )
    assert other_members(config, journal(members), None) == {"n2": "h:2"}
    assert other_members(config, None, None) == {}

# SPDX-License-Identifier: Apache-2.0
"""The files of a member: which exist, which match, and how the node starts."""

import contextlib
import datetime as dt
import json
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from sparecode_node.config import Config, load_config
from sparecode_node.config_section import Address
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership import founding_checks
from sparecode_node.membership.authority import FileAuthority
from sparecode_node.membership.certificates import Authority
from sparecode_node.membership.files import PRIVATE, missing_pairs, put
from sparecode_node.membership.founder import make_authorities
from sparecode_node.membership.joiner import begin_beside
from sparecode_node.membership.preparation import (
    FOUNDING,
    MEMBERS,
    StartError,
    first_members,
)
from sparecode_node.replication.members import Configuration, Member, MemberRole
from sparecode_node.replication.offline.inspection import JournalFacts
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.tool.doctor.files import check_certificates
from sparecode_node.tool.doctor.findings import Finding, Verdict
from sparecode_node.tool.doctor.membership import (
    check_authority,
    check_beginning,
    check_initialized,
    check_membership,
    is_prepared,
    other_members,
)
from sparecode_node.tool.doctor.state import check_journal, check_state

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


@pytest.mark.parametrize(
    ("answer", "is_refused"),
    [
        (MemberStatus(node_id=N2, reachable=True, audit_sequence=7), True),
        (MemberStatus(node_id=N2, reachable=False, refusal="removed"), True),
        (MemberStatus(node_id=N2, reachable=True), False),
        (MemberStatus(node_id=N2, reachable=False), False),
    ],
)
def test_a_cluster_that_runs_is_not_begun_again(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    answer: MemberStatus,
    *,
    is_refused: bool,
) -> None:
    """A founder that has lost its data, ring and all, looks like a new node."""

    async def ask(others: dict[NodeId, str], *_: object, **__: object) -> object:
        assert others == {N2: "n2.example:7301"}
        return (answer,)

    monkeypatch.setattr(founding_checks, "ask_members", ask)
    make_authorities(config, hosts=[], now=NOW)
    members = {**config.members, N2: Address("n2.example", 7301)}
    config = replace(config, members=members)
    expected = (
        pytest.raises(StartError, match="n2 already run a cluster")
        if is_refused
        else contextlib.nullcontext()
    )
    with expected:
        founding_checks.refuse_founding(config, SystemClock())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cluster_id": "c1"}', "7"])
def test_a_damaged_file_of_members_is_refused(config: Config, content: str) -> None:
    """A node that ignored the damaged file would begin a new cluster."""
    write_members(config, content)
    with pytest.raises(
        StartError, match="not the output of `sparecode-node init --join`"
    ):
        first_members(config, "c1")


def test_a_file_in_a_new_folder_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first statement about a skipped entry does: it is a promise (E3)."""
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", fsync)
    put(tmp_path / "data" / "skips" / "one.statement", b"x", PRIVATE)
    folders = [tmp_path, tmp_path / "data", tmp_path / "data" / "skips"]
    assert {str(folder) for folder in folders} <= {*synced}


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


def test_doctor_is_calm_about_a_node_that_is_set_up(config: Config) -> None:
    """Journal and state come at the first start, which `init` has prepared."""
    data = config.node.data_dir
    data.mkdir(exist_ok=True)

    def verdicts() -> set[Verdict]:
        prepared = is_prepared(config, None)
        _, journal = check_journal(
            data / "journal", node_id="n1", ring=None, running=False, prepared=prepared
        )
        state = check_state(
            data / "state.db", journal=None, ring=None, prepared=prepared
        )
        return {each.verdict for each in (journal, *state)}

    assert verdicts() == {Verdict.WARN}
    (data / FOUNDING).write_text("{}")
    assert verdicts() == {Verdict.OK}


def findings(config: Config) -> list[str]:
    return [
        each.words
        for each in check_certificates(config, NOW)
        if each.verdict is Verdict.WARN
    ]


def test_a_certificate_is_for_every_address_that_is_listened_on(config: Config) -> None:
    """Agents and administrators may call at other addresses than members do."""
    listener = replace(config.admin, listen=Address("192.0.2.7", 7304))
    everywhere = replace(config.agents, listen=Address("0.0.0.0", 7300))  # noqa: S104
    config = replace(config, admin=listener, agents=everywhere)
    make_authorities(config, hosts=("192.0.2.8",), now=NOW)
    certificate = x509.load_pem_x509_certificate(config.admin.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(each) for each in names.value.get_values_for_type(x509.IPAddress)] == [
        "127.0.0.1",
        "192.0.2.7",
        "192.0.2.8",
    ]


def test_doctor_tells_of_an_address_that_no_certificate_names(config: Config) -> None:
    """As after joining with a ticket that names the members' address alone."""
    (address,) = config.members.values()
    config = replace(config, members={"n1": replace(address, host="192.0.2.1")})
    make_authorities(config, hosts=(), now=NOW)
    assert findings(config) == []
    moved = replace(config.admin, listen=Address("192.0.2.7", 7304))
    (finding,) = findings(replace(config, admin=moved))
    assert "[admin] listens on 192.0.2.7, but its certificate is for" in finding
    assert finding.endswith("(--host 192.0.2.7)")


def test_doctor_expects_callers_to_use_a_name(config: Config) -> None:
    """A certificate with a host name need not name the address behind it."""
    make_authorities(config, hosts=(), now=NOW)
    moved = replace(config.admin, listen=Address("192.0.2.7", 7304))
    assert findings(replace(config, admin=moved)) == []


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
    ring = KeyRing.draw(SystemEntropy())
    content = {"cluster_id": ring.cluster_id, "members": {"n3": "h:3"}}
    (config.path.parent / "peers.cluster").write_text(json.dumps(content))
    assert other_members(config, None, ring) == {"n3": "h:3"}


def beginnings(config: Config, ring: KeyRing | None) -> list[tuple[Verdict, str]]:
    return [(each.verdict, each.words) for each in check_beginning(config, ring)]


def test_doctor_says_what_a_node_without_data_does(config: Config) -> None:
    ring = KeyRing.draw(SystemEntropy())
    data = config.node.data_dir
    ((verdict, words),) = beginnings(config, ring)
    assert verdict is Verdict.FAIL
    assert f"{data} has no data, but the key ring of cluster {ring.cluster_id}" in words
    ((verdict, words),) = beginnings(config, None)
    assert verdict is Verdict.FAIL
    assert words.startswith(f"{data} has no data: ")
    write_members(config, {"cluster_id": ring.cluster_id, "members": {"n2": "h:1"}})
    assert beginnings(config, ring) == [
        (Verdict.OK, f"n1 is ready to join cluster {ring.cluster_id}: start it")
    ]
    write_members(config, "")
    ((verdict, words),) = beginnings(config, ring)
    assert verdict is Verdict.FAIL
    assert "not the output of" in words
    (data / "bootstrap.json").touch()
    assert beginnings(config, ring)[0][0] is Verdict.OK
    (data / "state.db").touch()
    assert beginnings(config, ring) == []


def test_doctor_warns_of_founders_without_data(config: Config) -> None:
    text = config.path.read_text()
    config.path.write_text(
        text.replace("[cluster.members]\n", '[cluster.members]\nn2 = "h:2"\n')
    )
    ((verdict, words),) = beginnings(load_config(config.path), None)
    assert verdict is Verdict.WARN
    assert "it begins with n2, n1 once all of them run" in words


def test_doctor_finds_a_cluster_without_an_administrator(config: Config) -> None:
    """As a node of an earlier release left it that has begun a cluster by itself."""
    alone = journal(Configuration.of([Member(node_id=N1, address="h:1")]))
    assert list(check_initialized(config, alone)) == []
    with contextlib.closing(sqlite3.connect(config.node.data_dir / "state.db")) as db:
        StateMachine(db)
        (found,) = check_initialized(config, alone)
        assert found.verdict is Verdict.FAIL
        assert "docs/runbooks/blank-node.md" in found.words
        (config.node.data_dir / "bootstrap.json").touch()
        (found,) = check_initialized(config, alone)
        assert found.verdict is Verdict.WARN
        learner = Member(node_id=N1, address="h:1", role=MemberRole.LEARNER)
        voter = Member(node_id=N2, address="h:2")
        joining = journal(Configuration.of([learner, voter]))
        assert list(check_initialized(config, joining)) == []
        db.execute("INSERT INTO meta (name, value) VALUES ('cluster_id', 'c1')")
        assert list(check_initialized(config, alone)) == []

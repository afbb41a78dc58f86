# SPDX-License-Identifier: Apache-2.0
"""
The worst day on real processes: a backup restored, a survivor made the cluster.

Nothing spent is accepted again, even where its use was lost (E1, E2).
"""

import base64
import dataclasses
import datetime as dt
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyotp
import pytest
from local_cluster.cluster import ADMINISTRATOR, AGENT, LocalCluster, LocalNode
from local_cluster.setup import set_up

from sparecode_client import (
    Admin,
    Agent,
    NewToken,
    SparecodeError,
    TokenAlgorithm,
    Unavailable,
)
from sparecode_client.audit.verification import ProblemKind, verify
from sparecode_client.values.audit import Checkpoint
from sparecode_node.membership.certificates import write_certificates
from tests.system.machines import OneMachine, Site

PIN = "4719"
PASSPHRASE = "correct horse battery staple"


def seed_of(serial: str) -> bytes:
    """Return the seed of a token: no two have the same (K5)."""
    return serial.encode().ljust(20, b".")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Return a running cluster of three, of which little is left afterwards."""
    cluster = set_up(tmp_path / "cluster", testing=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def command(node: LocalNode, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `sparecode-node` as an operator does."""
    return subprocess.run(
        [sys.executable, "-m", "sparecode_node", "--config", node.config, *args],
        env=node.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def admin(cluster: LocalCluster, *nodes: LocalNode) -> Admin:
    """Sign the administrator in, on any of the nodes."""
    signed_in = Admin(
        [node.admin_address for node in nodes or cluster.nodes],
        ca=cluster.members_ca,
        timeout=timedelta(seconds=60),
    )
    signed_in.login(ADMINISTRATOR, cluster.password)
    return signed_in


def accepts(cluster: LocalCluster, node: LocalNode, user: str, passcode: str) -> bool:
    """Ask as the agent does."""
    with Agent(
        [node.agents_address],
        ca=cluster.members_ca,
        certificate=cluster.certificates / f"{AGENT}.pem",
        key=cluster.certificates / f"{AGENT}.key",
        timeout=timedelta(seconds=60),
    ) as agent:
        return agent.authenticate(user, passcode).accepted


def populate(cluster: LocalCluster) -> list[str]:
    """Set Alice up with codes, Tom with a TOTP token, Henry with HOTP; return codes."""
    with admin(cluster) as operator:
        operator.register_agent(AGENT, f"sparecode://agent/{AGENT}")
        for user, serial, algorithm in (
            ("alice", "1001", TokenAlgorithm.TOTP),
            ("tom", "1002", TokenAlgorithm.TOTP),
            ("henry", "1003", TokenAlgorithm.HOTP),
        ):
            operator.create_user(user)
            operator.enroll_token(
                NewToken(serial=serial, seed=seed_of(serial), algorithm=algorithm)
            )
            operator.assign_token(serial, user)
            operator.set_pin(serial, PIN)
        issued = operator.issue_tokencodes("1001", count=8)
    return [code.code for code in issued.codes]


def back_up(cluster: LocalCluster, folder: Path) -> tuple[Path, Path]:
    """Make a backup, encrypted to a new key; return both files."""
    backup, key = folder / "a.backup", folder / "backup.key"
    keygen = command(cluster.nodes[0], "backup", "keygen", key)
    with admin(cluster) as operator:
        policy = operator.get_policy()
        operator.update_policy(
            dataclasses.replace(policy, backup_recipients=keygen.stdout.strip())
        )
        with backup.open("wb") as file:
            operator.create_backup(lambda: file.truncate(0), file.write)
    return backup, key


def start_alone(cluster: LocalCluster, node: LocalNode) -> None:
    node.start()
    cluster.wait_ready(node)


def assert_old_codes_are_refused(
    cluster: LocalCluster, node: LocalNode, codes: list[str], epoch: int = 2
) -> None:
    """Try every old code, before and after the opening (E1, E2)."""
    with pytest.raises(SparecodeError, match="sparecode cluster open"):
        accepts(cluster, node, "alice", PIN + codes[0])
    with admin(cluster, node) as operator:
        review = operator.get_review()
        assert not review.open
        assert review.epoch == epoch
        assert [each.name for each in review.administrators] == [ADMINISTRATOR]
        operator.open_cluster(review.review)
        accepted = [
            code for code in codes if accepts(cluster, node, "alice", PIN + code)
        ]
        assert accepted == []
        # Every tokencode up to now is spent; HOTP waits.
        totp = pyotp.TOTP(base32("1002"))
        assert not accepts(cluster, node, "tom", PIN + totp.now())
        hotp = pyotp.HOTP(base32("1003"))
        assert not any(
            accepts(cluster, node, "henry", PIN + hotp.at(each)) for each in range(3)
        )
        operator.unlock_user("henry")
        operator.resynchronize_token("1003", hotp.at(7), hotp.at(8))
        operator.unlock_user("henry")
        assert accepts(cluster, node, "henry", PIN + hotp.at(9))
        # And everything goes on: new codes are good, once.
        issued = operator.issue_tokencodes("1001", count=2)
        code = PIN + issued.codes[0].code
        assert accepts(cluster, node, "alice", code)
        assert not accepts(cluster, node, "alice", code)


def base32(serial: str) -> str:

    return base64.b32encode(seed_of(serial)).decode()


def test_a_restored_backup_spends_nothing_twice(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """(E1, E2) Back up, spend, lose all, restore: no old code is accepted."""
    first = cluster.nodes[0]
    codes = populate(cluster)
    with admin(cluster) as operator:
        before = operator.get_checkpoint()
    backup, key = back_up(cluster, tmp_path)
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(PASSPHRASE)
    done = command(
        first, "bundle", tmp_path / "a.bundle", "--passphrase-file", passphrase
    )
    assert done.returncode == 0, done.stderr
    for code in codes[:4]:  # After the backup, which does not know of it.
        assert accepts(cluster, cluster.nodes[1], "alice", PIN + code)
    with admin(cluster) as operator:
        lost = operator.get_checkpoint()
    secret_things = [PIN, *codes, cluster.password, seed_of("1001").decode()]
    for path in (backup, tmp_path / "a.bundle"):
        content = path.read_bytes()
        assert not [each for each in secret_things if each.encode() in content]
        assert b"alice" not in content

    cluster.kill()
    for node in cluster.nodes:
        shutil.rmtree(node.directory / "data")
        node.key_ring.unlink()
    arguments = (
        "restore",
        backup,
        "--bundle",
        tmp_path / "a.bundle",
        "--key",
        key,
        "--passphrase-file",
        passphrase,
    )
    done = command(first, *arguments)
    assert done.returncode == 0, done.stderr
    assert "sparecode cluster open" in done.stdout
    again = command(first, *arguments)
    assert again.returncode == 1
    assert "exists" in again.stderr

    start_alone(cluster, first)
    assert_old_codes_are_refused(cluster, first, codes)
    # And it is a cluster like any other: it starts again with what it has.
    first.stop()
    first.start()
    cluster.wait_ready(first)
    with admin(cluster, first) as operator:
        assert operator.get_review().open
        assert operator.verify_chain().broken_sequence == 0
        assert_audit_log_goes_on(operator, tmp_path / "a.jsonl", before, lost)


@pytest.mark.long
def test_new_authorities_only_if_the_old_ones_are_lost(tmp_path: Path) -> None:
    """(P4, P5) Then no earlier certificate of an agent is accepted, and new ones are."""
    site = Site(tmp_path)
    try:
        lost = OneMachine(site.start_cluster(), site.directory / "password")
        write_certificates(lost.certificates, agents=[AGENT], now=now())
        populate(lost)
        backup, key = back_up(lost, tmp_path)
        recipient = key.read_text().partition("public key: ")[2].split()[0]
        (first,) = lost.nodes
        whole, bare = tmp_path / "whole.bundle", tmp_path / "bare.bundle"
        exported = command(first, "bundle", whole, "--recipient", recipient)
        assert exported.returncode == 0, exported.stderr
        lost.kill()
        old = lost.certificates.rename(tmp_path / "old")
        exported = command(first, "bundle", bare, "--recipient", recipient)
        assert exported.returncode == 0, exported.stderr
        shutil.rmtree(lost.directory)

        cluster = OneMachine(site.machine("n1", "new"), site.directory / "password")
        (node,) = cluster.nodes
        words = ("restore", backup, "--key", key, "--new-authority", "--bundle")
        refused = command(node, *words, whole)
        assert refused.returncode == 1
        assert "omit --new-authority" in " ".join(refused.stderr.split())
        assert [each.name for each in cluster.directory.iterdir()] == ["node.toml"]
        done = command(node, *words, bare)
        assert done.returncode == 0, done.stderr
        assert f"Wrote {cluster.members_ca}." in done.stdout
        assert cluster.members_ca.read_bytes() != (old / "members-ca.pem").read_bytes()

        start_alone(cluster, node)
        with admin(cluster) as operator:
            operator.open_cluster(operator.get_review().review)
            (code,) = operator.issue_tokencodes("1001", count=1).codes
        write_certificates(cluster.certificates, agents=[AGENT], now=now())
        with (
            Agent(
                [node.agents_address],
                ca=cluster.members_ca,
                certificate=old / f"{AGENT}.pem",
                key=old / f"{AGENT}.key",
                timeout=timedelta(seconds=5),
            ) as agent,
            pytest.raises(Unavailable),
        ):
            agent.authenticate("alice", PIN + code.code)
        assert accepts(cluster, node, "alice", PIN + code.code)
    finally:
        site.kill()


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def assert_audit_log_goes_on(
    operator: Admin, path: Path, before: Checkpoint, lost: Checkpoint
) -> None:
    """
    (U1, U2) One chain, in which the new epoch is an event.

    What was signed before the backup proves it; what was signed of events that are
    lost does not fit, as it must be.
    """
    newest = operator.get_checkpoint()
    assert newest.public_key == before.public_key
    assert newest.cluster_id != before.cluster_id
    with path.open("wb") as file:
        operator.export_audit_events(file.write)
    verdict = verify(path, [before, newest])
    assert verdict.problem is None
    assert verdict.first == 1
    assert verdict.proved_up_to == newest.sequence
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    (begun,) = (each for each in events if each["action"] == "BeginEpoch")
    assert before.sequence < begun["sequence"] <= lost.sequence
    assert "epoch 2 after restore" in begun["detail"]
    problem = verify(path, [lost]).problem
    assert problem is not None
    assert problem.kind in (ProblemKind.NOT_SIGNED, ProblemKind.CUT)


@pytest.mark.long
def test_a_survivor_becomes_the_cluster_and_the_others_stay_out(
    cluster: LocalCluster,
) -> None:
    """(E1, E2) Told what it does, refused while others live, then done for good."""
    survivor, *lost = cluster.nodes
    codes = populate(cluster)
    for code in codes[:3]:
        assert accepts(cluster, lost[0], "alice", PIN + code)
    running = command(survivor, "recover")
    assert running.returncode == 1
    assert "another process is using" in running.stderr

    survivor.stop()
    refused = command(survivor, "recover", "--make-this-node-a-new-cluster")
    assert refused.returncode == 1
    assert re.search("has more of the log|the quorum is not lost", refused.stderr)
    cluster.kill()
    # What node.toml says of members is for the first start, and no matter here.
    other = f'n3 = "{lost[1].peers_address}"'
    text = survivor.config.read_text()
    assert other in text
    survivor.config.write_text(text.replace(other, ""))
    report = command(survivor, "recover")
    assert report.returncode == 1
    assert report.stderr == ""
    assert "Nothing was changed" in report.stdout
    assert "n2: cannot be reached" in report.stdout
    # The command to copy names this test's folder.
    lines = report.stdout.replace(str(survivor.config), "node.toml").splitlines()
    assert max(map(len, lines)) <= 80

    done = command(survivor, "recover", "--make-this-node-a-new-cluster")
    assert done.returncode == 0, done.stderr + done.stdout
    start_alone(cluster, survivor)
    assert_old_codes_are_refused(cluster, survivor, codes)
    with admin(cluster, survivor) as operator:
        before = operator.get_status()
        for node in lost:  # They were not lost after all, and come back as they were.
            node.start()
        cluster.wait_ready(*lost)
        after = operator.get_status()
        assert after.cluster_id == before.cluster_id
        assert len(after.members) == 1
        assert after.quorum
        events = operator.list_audit_events().items
        assert any(each.action == "BeginEpoch" for each in events)
    (kept,) = (survivor.directory / "data").glob("before.*")
    assert {each.name for each in kept.iterdir()} >= {
        "journal",
        "ring.json",
        "state.db",
    }

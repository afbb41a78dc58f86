# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node doctor` on the nodes of a real cluster: well, and then spoiled."""

import asyncio
import contextlib
import datetime as dt
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalCluster, LocalNode

from sparecode_client import Admin
from sparecode_node.config import load_config
from sparecode_node.membership.certificates import write_certificates
from sparecode_node.services.ambient import SystemClock
from sparecode_node.tool.doctor.examination import examine
from sparecode_node.tool.doctor.findings import Finding, Verdict


def doctor(node: LocalNode, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it as an operator does."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "sparecode_node",
            "--config",
            node.config,
            "doctor",
            *options,
        ],
        env=node.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def report_text(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a person reads, as one line."""
    return " ".join(done.stdout.split())


def failures(node: LocalNode) -> dict[str, str]:
    """Return what has failed, by subject."""
    done = doctor(node, "--output", "json")
    assert done.stderr == ""
    result = json.loads(done.stdout)
    failed: dict[str, str] = {}
    for each in result:
        if each["verdict"] == "fail":
            failed[each["subject"]] = failed.get(each["subject"], "") + each["words"]
    assert done.returncode == bool(failed)
    return failed


@contextlib.contextmanager
def spoiled(path: Path) -> Iterator[Path]:
    """Let a test change a file, and put it back."""
    kept, mode = path.read_bytes(), path.stat().st_mode
    try:
        yield path
    finally:
        path.write_bytes(kept)
        path.chmod(mode)


@contextlib.contextmanager
def stopped(cluster: LocalCluster, *nodes: LocalNode) -> Iterator[None]:
    for node in nodes:
        node.stop()
    try:
        yield
    finally:
        for node in nodes:
            node.start()
        cluster.wait_ready(*nodes)


def test_healthy_node_is_said_to_be_healthy_running_or_not(cluster: LocalCluster):
    node = cluster.nodes[0]
    done = doctor(node)
    assert done.returncode == 0, done.stdout
    for words in (
        "node n1 of n1, n2, n3",
        "the node is running; ports in use: agents 127.0.0.1:",
        " authentications a second",
        "[peers] valid until ",
        "keys 1, 1 active",
        "entries 1 to ",
        "in an unbroken chain, head ",
        "key 1 has been active since ",
        "WARN backup no backup was ever taken",
        "n2 answers; its clock is ",
        "n3 answers; its clock is ",
    ):
        assert words in report_text(done)
    assert "FAIL" not in done.stdout
    assert all(
        len(line) <= 80 or len(max(line.split(), key=len)) > 40
        for line in done.stdout.splitlines()
    )
    with stopped(cluster, node):
        done = doctor(node)
        assert "ports all free; the node is not running" in report_text(done)
        assert done.returncode == 0, done.stdout
    assert not (node.directory / "data/.doctor").exists()


def test_lost_quorum_is_a_failure(cluster: LocalCluster):
    node, *others = cluster.nodes
    with stopped(cluster, *others):
        words = (
            "1 of 3 voters can be reached, which is not a quorum: start the others, or "
            "check the network"
        )
        assert failures(node) == {"members": words}


def test_flipped_bit_of_the_journal_is_found(cluster: LocalCluster):
    node = cluster.nodes[0]
    with (
        stopped(cluster, node),
        spoiled(node.directory / "data/journal/raft.journal") as journal,
    ):
        data = bytearray(journal.read_bytes())
        data[len(data) // 3] ^= 1
        journal.write_bytes(data)
        failed = failures(node)
        assert "remove this node from the cluster" in failed["journal"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_events SET detail = 'nothing' WHERE sequence = 1",
        "DELETE FROM audit_events WHERE sequence = 1",
    ],
)
def test_edited_audit_log_is_found(cluster: LocalCluster, change: str):
    """(U1)."""
    node = cluster.nodes[0]
    with Admin(node.admin_address, ca=cluster.members_ca) as admin:
        admin.login(ADMINISTRATOR, cluster.password)  # Another event.
    with stopped(cluster, node):
        state = node.directory / "data/state.db"
        with contextlib.closing(sqlite3.connect(state)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with spoiled(state):
            with contextlib.closing(sqlite3.connect(state)) as db:
                db.execute(change)
                db.commit()
            assert "the chain breaks at event 1" in failures(node)["audit log"]
            for rest in ("-wal", "-shm"):
                state.with_name(state.name + rest).unlink(missing_ok=True)


def test_damaged_database_is_found(cluster: LocalCluster):
    node = cluster.nodes[0]
    with stopped(cluster, node), spoiled(node.directory / "data/state.db") as state:
        state.write_bytes(b"not a database" * 1000)
        assert "file is not a database" in failures(node)["state"]


def test_key_ring_that_others_read_or_of_another_cluster_is_found(
    cluster: LocalCluster,
):
    """(P5)."""
    node = cluster.nodes[0]
    with spoiled(node.key_ring) as ring:
        ring.chmod(0o640)
        assert "chmod 600" in failures(node)["key ring"]
    with spoiled(node.key_ring) as ring:
        content = json.loads(ring.read_text())
        content["cluster_id"] = "another"
        ring.write_text(json.dumps(content))
        failed = failures(node)
        assert "belongs to another cluster" in failed["key ring"]
        assert "of cluster" in failed["journal"]


@dataclass
class WrongCertificate:
    """What another operator might have put in the place of a certificate."""

    words: str
    days: float = 90
    age_days: float = 0
    member: str = "n1"


@pytest.mark.parametrize(
    "certificate",
    [
        WrongCertificate("expired at", days=1, age_days=2),
        WrongCertificate("is not signed by any of the authorities"),
        WrongCertificate(
            "lacks the subject names n1.members.sparecode, sparecode://member/n1",
            member="n2",
        ),
    ],
    ids=["expired", "stranger", "another-node"],
)
def test_certificate_that_others_will_refuse_is_found(
    cluster: LocalCluster, tmp_path: Path, certificate: WrongCertificate
):
    node = cluster.nodes[0]
    write_certificates(
        tmp_path,
        members=[certificate.member],
        now=dt.datetime.now(dt.UTC) - dt.timedelta(days=certificate.age_days),
        days=certificate.days,
    )
    with spoiled(node.config) as config:
        ours = f"{cluster.certificates}/n1"
        text = config.read_text()
        start = text.index("[peers]")
        changed = text[start:].replace(ours, f"{tmp_path}/{certificate.member}", 2)
        config.write_text(text[:start] + changed)
        assert certificate.words in failures(node)["certificate"]


class LateClock(SystemClock):
    """A clock that is ten seconds late."""

    def now_ms(self) -> int:
        return super().now_ms() - 10_000


def test_wrong_clock_is_found(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch):
    """(T5) Against every other member's; a clock of this machine that is late."""
    monkeypatch.setenv("SPARECODE_TESTING", "1")
    config = load_config(cluster.nodes[0].config)

    def clocks(findings: list[Finding]) -> list[Finding]:
        return [finding for finding in findings if finding.subject == "clock"]

    right = clocks(asyncio.run(examine(config, SystemClock())))
    assert [finding.verdict for finding in right] == [Verdict.OK, Verdict.OK]
    wrong = clocks(asyncio.run(examine(config, LateClock())))
    assert [finding.verdict for finding in wrong] == [Verdict.FAIL] * 3
    assert "too far for a primary" in wrong[0].words
    assert "this machine's clock is the wrong one" in wrong[2].words


def test_folder_that_is_not_there_or_open_to_others_is_found(cluster: LocalCluster):
    node = cluster.nodes[0]
    data = node.directory / "data"
    data.chmod(0o755)
    assert f"chmod 700 {data}" in report_text(doctor(node))
    data.chmod(0o700)
    with stopped(cluster, node):
        aside = node.directory / "aside"
        data.rename(aside)
        try:
            assert "does not exist" in failures(node)["data folder"]
        finally:
            shutil.rmtree(data, ignore_errors=True)
            aside.rename(data)


def test_taken_port_is_found(cluster: LocalCluster):
    node = cluster.nodes[0]
    with stopped(cluster, node), socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((node.ports.host, node.ports.admin))
        taken.listen()
        assert f"admin {node.admin_address}" in failures(node)["ports"]
    assert os.access(node.config, os.R_OK)

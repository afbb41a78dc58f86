# SPDX-License-Identifier: Apache-2.0
"""
Every runbook's commands, on a real cluster on which just that has happened.

`runbook_operator.py` says how they are typed.
"""

import dataclasses
import datetime as dt
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from local_cluster.cluster import (
    ADMINISTRATOR,
    AGENT,
    LocalCluster,
    LocalNode,
    free_ports,
)
from local_cluster.setup import set_up

from sparecode_client import (
    Admin,
    Agent,
    Decision,
    MemberStanding,
    NewToken,
    Unavailable,
)
from sparecode_node.membership.certificates import Authority, write_certificates
from tests.faults.clocks import NodeClock
from tests.faults.disks import Disk
from tests.faults.network import ToolError
from tests.system.machines import OneMachine, Site, until
from tests.system.runbook_operator import RUNBOOKS, Operator, new_machine

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
BACKUP_UNIT = ROOT / "deploy/systemd/sparecode-backup.service"
DISK_SIZE = "128M"
LIVES = dt.timedelta(seconds=12)
"""Lifetime of a certificate that is to expire during a test."""
WRONG_S = 10
"""How far a wrong clock is ahead."""
RECORDED = "as the cluster has recorded"
RESET_DELAY_S = 3600
"""A requested reset of an administrator is announced for this long."""


@contextmanager
def operated(folder: Path, *, testing: bool = True) -> Iterator[Operator]:
    """
    Yield an operator with a healthy cluster and a folder.

    Without *testing*, it hashes as every other cluster does.
    """
    cluster = set_up(folder / "cluster", testing=testing)
    own = folder / "operator"
    own.mkdir()
    try:
        for node in cluster.nodes:
            NodeClock(node, folder)
        cluster.start()
        result = Operator(cluster, cluster.nodes[0], own)
        result.sign_in()
        yield result
    finally:
        cluster.kill()


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    """Return an operator with a healthy cluster and a folder."""
    with operated(tmp_path) as result:
        yield result


BACKUP_FILES = ("nightly.backup", "backup.key", "recovery.bundle")
"""All that an operator needs of a lost cluster, as restore.md says."""
WAYS = {"Restore on an empty machine", "Restore with a node.toml"}
"""The sections of restore.md of which an operator follows one."""
PIN = "4719"
ACCEPTED_AGAIN = {"earlier": False, "new": True}
"""Of the codes of a restored cluster."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remains:
    """What is left of a cluster when every machine is lost."""

    folder: Path
    """With the three files that a restore needs, and no other."""
    password_file: Path
    """The administrator's password."""
    certificate: Path
    """An agent's, which is on another machine."""
    key: Path
    code: str
    """An emergency code of alice that nobody has used."""


@pytest.fixture(scope="module")
def remains(tmp_path_factory: pytest.TempPathFactory) -> Remains:
    """Follow backups.md, and lose every machine."""
    folder = tmp_path_factory.mktemp("remains")
    result = Remains(
        folder=folder / "safe",
        password_file=folder / "password",
        certificate=folder / "agent.pem",
        key=folder / "agent.key",
        code="",
    )
    # With the hashing of a node.toml that `setup` writes.
    with operated(folder, testing=False) as operator:
        cluster = operator.cluster
        with Admin(operator.node.admin_address, ca=cluster.members_ca) as admin:
            admin.login(ADMINISTRATOR, cluster.password)
            admin.register_agent(AGENT, f"sparecode://agent/{AGENT}")
            admin.create_user("alice")
            admin.enroll_token(NewToken(serial="1001", seed=b"seed".ljust(20, b".")))
            admin.assign_token("1001", "alice")
            admin.set_pin("1001", PIN)
            (code,) = admin.issue_tokencodes("1001", count=1).codes
        operator.follow("backups.md")
        back_up_as_the_timer_does(operator)
        result.folder.mkdir()
        for name in BACKUP_FILES:
            shutil.copy(operator.folder / name, result.folder)
        shutil.copy(cluster.password_file, result.password_file)
        shutil.copy(cluster.certificates / f"{AGENT}.pem", result.certificate)
        shutil.copy(cluster.certificates / f"{AGENT}.key", result.key)
    shutil.rmtree(cluster.directory)
    return dataclasses.replace(result, code=code.code)


@contextmanager
def disk_of_its_own(node: LocalNode, folder: Path) -> Iterator[Disk]:
    """Put the data of a node on a small file system; skips where that cannot be."""
    if os.geteuid():
        pytest.skip("needs root: mounts a small file system and fills it")
    for tool in ("mkfs.ext4", "mount"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is missing: make system-packages")
    node.stop()
    data = node.directory / "data"
    disk = Disk(folder / "disk.image", data, "ext4", DISK_SIZE)
    kept = shutil.copytree(data, folder / "kept")
    try:
        disk.make()
    except ToolError as error:
        pytest.skip(f"this machine has no loop devices: {error}")
    try:
        shutil.copytree(kept, data, dirs_exist_ok=True)
        data.chmod(0o700)
        yield disk
    finally:
        node.kill()
        disk.unmount()


def fill_disk(cluster: LocalCluster, node: LocalNode, disk: Disk) -> None:
    """Leave a node no room, and have the others give it something to write."""
    node.start()
    cluster.wait_ready(node)
    disk.fill()
    others = [each.admin_address for each in cluster.nodes if each is not node]
    with Admin(others, ca=cluster.members_ca, timeout=timedelta(minutes=1)) as admin:
        admin.login(ADMINISTRATOR, cluster.password)
        for number in range(2_000):
            if not node.running:
                break
            admin.create_user(f"filler-{number}", display_name="x" * 100)
    assert node.wait(timeout_s=60) == 70
    node.kill()  # Forgets the process that has ended.
    *_, last = node.last_words().splitlines()
    assert re.search("stopped: .*(No space left on device|disk is full)", last)


def test_every_page_is_in_the_table_and_is_followed() -> None:
    pages = {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}
    listed = re.findall(r"\]\(([a-z-]+\.md)\)", (RUNBOOKS / "README.md").read_text())
    assert set(listed) == pages
    tests = Path(__file__).parent.glob("test_*.py")
    followed = "".join(path.read_text() for path in tests)
    assert [page for page in sorted(pages) if f'"{page}"' not in followed] == []


def test_pages_of_a_cluster_that_goes_on(operator: Operator, tmp_path: Path) -> None:
    """In turn, on one cluster: each leaves it well."""
    cluster = operator.cluster
    operator.follow("expired-certificates.md", "Certificates that expire soon")

    operator.follow("missing-segments.md")
    operator.follow("slow-member.md")
    put_back(operator, cluster.nodes[2])
    operator.follow("restored-machine.md")
    lose_a_write(cluster.nodes[2])
    operator.follow("failing-disk.md")
    cluster.nodes[2].kill()
    operator.newcomer = new_machine("n4", operator.folder)
    clocks = [NodeClock(node, tmp_path) for node in (*cluster.nodes, operator.newcomer)]
    lost = cluster.nodes[2]
    shutil.rmtree(lost.directory / "data")
    refused(lost, "journal is not the one")
    its_operator = Operator(cluster, lost, operator.folder)
    its_operator.follow("blank-node.md")
    cluster.nodes.append(operator.newcomer)
    operator.follow("lost-node.md")
    until(lambda: members(operator).keys() == {"n1", "n2", "n4"})
    refused(lost, "was removed from the cluster")
    its_operator.follow("removed-node.md")
    blank, removed = its_operator.outputs["sparecode-node doctor"]
    assert "docs/runbooks/blank-node.md" in " ".join(blank.split())
    assert "docs/runbooks/removed-node.md" in " ".join(removed.split())

    leaked = cluster.certificates / f"{AGENT}.pem"
    shutil.copy(leaked, operator.folder / "leaked-agent.pem")
    operator.follow("leaked-key.md")

    def an_hour_later() -> None:
        for clock in clocks:
            clock.set(RESET_DELAY_S)

    operator.follow("lost-password.md", sparecode=an_hour_later)


def refused(node: LocalNode, why: str) -> None:
    """Start a node, and see that a member refuses it."""
    node.start()
    until(lambda: why in node.log.read_text())


def put_back(operator: Operator, node: LocalNode) -> None:
    """Put a node back to an older copy of its data, and see that it is refused."""
    data, copy = node.directory / "data", node.directory / "copy"
    node.stop()
    shutil.copytree(data, copy)
    node.start()
    operator.cluster.wait_ready(node)
    others = [each.admin_address for each in operator.cluster.nodes if each is not node]
    with Admin(others, ca=operator.cluster.members_ca) as admin:
        admin.login(ADMINISTRATOR, operator.cluster.password)
        admin.create_user("made-after-the-copy")
    node.stop()
    shutil.rmtree(data)
    copy.rename(data)
    node.start()
    until(lambda: "restored_from_older_copy" in node.last_words(lines=200))


def lose_a_write(node: LocalNode) -> None:
    """Change the last byte of the state, and see that the node notices."""
    node.stop()
    state = node.directory / "data/state.db"
    state.with_name("state.db-wal").write_bytes(b"")  # All of it is in the database.
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)
    node.start()
    assert node.wait(timeout_s=60) == 1
    assert "the disk has lost a write" in node.last_words()


def members(operator: Operator) -> dict[str, str]:
    """Return the voters, with their addresses."""
    with Admin(operator.node.admin_address, ca=operator.cluster.members_ca) as admin:
        admin.login(ADMINISTRATOR, operator.cluster.password)
        return {
            each.node_id: each.address
            for each in admin.list_members()
            if each.standing is MemberStanding.VOTER
        }


def test_a_node_that_has_moved(operator: Operator) -> None:
    """That all may move at once is shown in tests/replication/."""
    node = operator.node
    before = node.peers_address
    (port,) = free_ports(1)

    def move() -> None:
        node.ports = dataclasses.replace(node.ports, peers=port)
        text = node.config.read_text()
        node.config.write_text(text.replace(before, node.peers_address))

    operator.follow("moved-nodes.md", systemctl=move)
    assert before != node.peers_address
    until(lambda: members(operator)[node.node_id] == node.peers_address)


def test_a_clock_that_is_wrong(operator: Operator, tmp_path: Path) -> None:
    """The page names the node, and what it says is done."""
    cluster, node = operator.cluster, operator.node
    node.stop()
    operator.clock = NodeClock(node, tmp_path)
    node.start()
    cluster.wait_ready(node)
    operator.clock.set(WRONG_S)
    others = [each.admin_address for each in cluster.nodes if each is not node]
    with Admin(others, ca=cluster.members_ca) as admin:
        admin.login(ADMINISTRATOR, cluster.password)
        until(lambda: admin.get_status().primary not in ("", node.node_id))
    operator.follow("wrong-clock.md")
    wrong, right = operator.outputs["sparecode cluster status"]
    # Against the node that was asked: it is the wrong one, or another.
    off = re.compile(rf"[-+](?:{WRONG_S - 1}|{WRONG_S})\d{{3}} ms")
    assert off.findall(wrong), wrong
    assert not off.findall(right)
    assert "3 of 3 members" in right


def test_a_disk_that_is_full(operator: Operator, tmp_path: Path) -> None:
    """A file system that is really full, as only root can make one."""
    cluster, node = operator.cluster, operator.node
    with disk_of_its_own(node, tmp_path) as disk:
        fill_disk(cluster, node, disk)
        operator.follow("full-disk.md", systemctl=disk.free)
        assert "100%" in operator.outputs["df -h /var/lib/sparecode"][-1]
        assert "3 of 3 members" in operator.outputs["sparecode cluster status"][-1]
        assert not disk.ballast.exists()


def let_certificates_end(cluster: LocalCluster) -> None:
    """Give every node a certificate of some seconds, and see the last of them."""
    files = (cluster.certificates / f"members-ca.{end}" for end in ("pem", "key"))
    authority = Authority.from_pem(*(file.read_bytes() for file in files))
    now = dt.datetime.now(dt.UTC)
    for node in cluster.nodes:
        present = cluster.certificates / f"{node.node_id}.pem"
        key = x509.load_pem_x509_certificate(present.read_bytes()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        issued = authority.certify_member(
            node.node_id,
            key,
            hosts=[node.ports.host],
            now=now,
            days=LIVES / dt.timedelta(days=1),
        )
        present.write_bytes(issued)
        assert node.pid is not None
        os.kill(node.pid, 1)
    until(
        lambda: all(
            "certificate_ends" in node.log.read_text() for node in cluster.nodes
        )
    )
    until(lambda: dt.datetime.now(dt.UTC) > now + LIVES)


def test_certificates_that_have_ended(operator: Operator) -> None:
    """
    On every node, while the cluster runs; one node was stopped then, and stays down.

    The page leads back to three members, with the state that there was.
    """
    cluster, page = operator.cluster, "expired-certificates.md"
    last = cluster.nodes[-1]
    let_certificates_end(cluster)
    last.stop()
    last.start()
    assert last.wait(timeout_s=60) == 1
    assert f"{last.node_id}.pem: expired at" in last.last_words(3)
    last.kill()  # Forgets the process that has ended.

    operator.follow(page, "Expired certificates")
    for node in cluster.nodes:
        Operator(cluster, node, operator.folder).follow(
            page, "New certificates on every node"
        )
    cluster.wait_ready(*cluster.nodes)
    operator.follow(page, "Check the cluster")
    assert "3 of 3 members" in operator.outputs["sparecode cluster status"][-1]


SECTION = "A node with another key"


def doctor(operator: Operator, node: LocalNode) -> str:
    """Return what doctor says of a node, in one line: it wraps."""
    there = Operator(operator.cluster, node, operator.folder)
    done = subprocess.run(
        ["sparecode-node", "doctor"],
        env=there._environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return " ".join(done.stdout.split())


def new_key(cluster: LocalCluster, node: LocalNode) -> None:
    """Give a stopped node another key, as if it had lost its own."""
    for end in ("key", "pem"):
        (cluster.certificates / f"{node.node_id}.{end}").unlink()
    write_certificates(
        cluster.certificates,
        members=[node.node_id],
        hosts=[node.ports.host],
        now=dt.datetime.now(dt.UTC),
    )


def accept_keys(node: LocalNode, keys: dict[str, str]) -> None:
    """Write the line of the page into a node's settings, or delete it; reload."""
    text = re.sub(r"(?m)^accept_keys = .*\n", "", node.config.read_text())
    if keys:
        line = tomllib.loads(toml_block(SECTION))["peers"]
        assert line.keys() == {"accept_keys"}, "the page says something else"
        pairs = ", ".join(f'{name} = "{key}"' for name, key in keys.items())
        text = text.replace("[peers]\n", f"[peers]\naccept_keys = {{ {pairs} }}\n", 1)
    node.config.write_text(text)
    assert node.pid is not None
    os.kill(node.pid, 1)


def toml_block(section: str) -> str:
    """Return the settings that a section of the page shows."""
    text = (RUNBOOKS / "expired-certificates.md").read_text()
    found = re.search(r"(?ms)^```toml\n(.*?)^```", text.partition(section)[2])
    assert found is not None
    return found[1]


def test_keys_of_a_quorum_that_are_lost(operator: Operator) -> None:
    """
    (P5a) Two of three nodes have another key, so no quorum is left that could record it.

    The others refuse them, until each operator accepts the keys by hand. Then the cluster
    records them, and the lines can go.
    """
    cluster = operator.cluster
    first, *changed = cluster.nodes
    until(lambda: all(RECORDED in doctor(operator, each) for each in cluster.nodes))
    for node in changed:
        node.stop()
        new_key(cluster, node)
        node.start()
    until(lambda: "another key" in first.log.read_text())
    keys = {}
    for node in changed:
        said = doctor(operator, node)
        assert "the other members refuse this node" in said
        found = re.search(r"has the key ([0-9a-f]{64})", said)
        assert found is not None
        keys[node.node_id] = found[1]
    for node in cluster.nodes:
        others = {name: key for name, key in keys.items() if name != node.node_id}
        accept_keys(node, others)
    cluster.wait_ready(*cluster.nodes)
    until(lambda: all(RECORDED in doctor(operator, each) for each in cluster.nodes))
    assert "delete the line" in doctor(operator, first)
    for node in cluster.nodes:
        accept_keys(node, {})
    assert "delete the line" not in doctor(operator, first)
    # They are known without the lines, also over new connections.
    changed[0].stop()
    changed[0].start()
    cluster.wait_ready(*cluster.nodes)


def test_an_agents_certificate_that_has_ended(operator: Operator) -> None:
    """The handshake refuses it, and takes the new one: the identity is the same."""
    cluster = operator.cluster
    files = (cluster.certificates / f"agents-ca.{end}" for end in ("pem", "key"))
    authority = Authority.from_pem(*(file.read_bytes() for file in files))
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    ended = authority.issue_agent(AGENT, now=before, days=1)
    for end, content in (("key", ended.key), ("pem", ended.certificate)):
        (cluster.certificates / f"{AGENT}.{end}").write_bytes(content)
    with Admin(operator.node.admin_address, ca=cluster.members_ca) as admin:
        admin.login(ADMINISTRATOR, cluster.password)
        admin.register_agent(AGENT, f"sparecode://agent/{AGENT}")

    def ask() -> Decision:
        with Agent(
            [node.agents_address for node in cluster.nodes],
            ca=cluster.members_ca,
            certificate=cluster.certificates / f"{AGENT}.pem",
            key=cluster.certificates / f"{AGENT}.key",
            timeout=timedelta(seconds=5),
        ) as agent:
            return agent.authenticate("nobody", "123456").decision

    with pytest.raises(Unavailable):
        ask()
    operator.follow("expired-certificates.md", "An agent's certificate")
    assert ask() is Decision.REFUSED


def test_backups_and_a_restore(remains: Remains, tmp_path: Path) -> None:
    """Both pages, with the loss of everything in between, and a new node.toml."""
    elsewhere = Site(tmp_path / "elsewhere")
    elsewhere.directory.mkdir()
    machine = elsewhere.machine("n1", "new")
    settings = machine.config.read_text()
    machine.config.write_text(settings.replace('"testing"', '"production"'))
    codes = restore(remains, machine, tmp_path, "Restore with a node.toml")
    assert codes == ACCEPTED_AGAIN


def test_a_restore_on_an_empty_machine(remains: Remains, tmp_path: Path) -> None:
    """By one command, with the backup, its key and the bundle, and nothing else."""
    machine = new_machine("m1", tmp_path / "operator")
    # The node runs when it is checked, and the page makes a backup later.
    codes = restore(remains, machine, tmp_path, "Restore on an empty machine", "backup")
    assert codes == ACCEPTED_AGAIN


def restore(
    remains: Remains, machine: LocalNode, tmp_path: Path, way: str, *warned: str
) -> dict[str, bool]:
    """
    Follow restore.md on a new machine; return which codes are accepted then.

    *warned*: what the doctor may warn about.
    """
    folder = tmp_path / "operator"
    shutil.copytree(remains.folder, folder)
    assert {each.name for each in folder.iterdir()} == set(BACKUP_FILES)
    newcomer = new_machine("n4", folder)
    cluster = OneMachine(machine, remains.password_file)
    operator = Operator(cluster, machine, folder, newcomer=newcomer)
    page = (RUNBOOKS / "restore.md").read_text()
    assert "```" not in page.partition("\n## ")[0]
    sections = re.findall(r"(?m)^## (.*)$", page)
    assert set(sections) > WAYS
    try:
        for section in sections:
            if section == way or section not in WAYS:
                operator.follow("restore.md", section)
        (doctor,) = operator.outputs["sparecode-node doctor"]
        assert calm(doctor, *warned), doctor
        assert "1 of 1 members" in operator.outputs["sparecode cluster status"][-1]
        until(lambda: members(operator).keys() == {machine.node_id, "n4"})
        return accepted_codes(operator, remains)
    finally:
        machine.kill()
        newcomer.kill()


def accepted_codes(operator: Operator, remains: Remains) -> dict[str, bool]:
    """Return whether the agent, with its earlier certificate, gets codes accepted."""
    ca = operator.cluster.members_ca
    with Admin(operator.node.admin_address, ca=ca) as admin:
        admin.login(ADMINISTRATOR, operator.cluster.password)
        (new,) = admin.issue_tokencodes("1001", count=1).codes
    with Agent(
        operator.node.agents_address,
        ca=ca,
        certificate=remains.certificate,
        key=remains.key,
    ) as agent:
        return {
            name: agent.authenticate("alice", PIN + code).accepted
            for name, code in (("earlier", remains.code), ("new", new.code))
        }


def calm(doctor: str, *warned: str) -> bool:
    """
    Return whether the doctor asks for nothing else; the disk of a test may be slow.

    *warned*: subjects of warnings that are right.
    """
    findings = re.findall(r"^(WARN|FAIL) +(.*)$", doctor, re.MULTILINE)
    accepted = {("WARN", subject) for subject in warned}
    return all(
        words.startswith("disk") or (verdict, words.split()[0]) in accepted
        for verdict, words in findings
    )


def back_up_as_the_timer_does(operator: Operator) -> None:
    """Run what the unit runs, as the administrator that the page has made."""
    kept = operator.folder / "state"
    credentials = operator.folder / "credentials"
    for folder in (kept, credentials):
        folder.mkdir()
    shutil.copy(operator.folder / "backup.password", credentials / "password")
    old = kept / "old.backup"
    old.touch()
    month_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=32)
    os.utime(old, times=(month_ago.timestamp(),) * 2)
    session = operator.folder / "timer.session"
    text = BACKUP_UNIT.read_text().replace("\\\n", " ").replace("%%", "%")
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    done = subprocess.run(
        shlex.split(command),
        env={
            **operator._environment(),
            "SPARECODE_BACKUP_ADMINISTRATOR": "backup",
            "SPARECODE_SESSION_FILE": str(session),
            "CREDENTIALS_DIRECTORY": str(credentials),
            "STATE_DIRECTORY": str(kept),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = kept.iterdir()
    assert made.suffix == ".backup"
    assert made.stat().st_mode & 0o777 == 0o600
    assert not session.exists()
    verify = f"sparecode-node backup verify {made} --key backup.key"
    operator._type("backups.md", verify, refused=False)


def test_a_quorum_that_is_lost(operator: Operator) -> None:
    for node in operator.cluster.nodes[1:]:
        node.kill()
    operator.follow("lost-quorum.md")
    assert "1 of 1 members" in operator.outputs["sparecode cluster status"][-1]

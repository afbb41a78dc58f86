# SPDX-License-Identifier: Apache-2.0
"""A cluster grows from one node to three by tickets, under load, and loses nodes again."""

import datetime as dt
import json
import re
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Self

import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalNode

from sparecode_client import Admin, Unavailable
from sparecode_node.membership.certificates import Authority
from tests.system.machines import PASSWORD, Site, until

pytestmark = pytest.mark.timeout(600)


class Load:
    """An administrator who adds users without a pause, on any node that answers."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.added: list[str] = []
        self.failures: list[Exception] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        nodes = [machine.admin_address for machine in self._site.machines.values()]
        within = timedelta(seconds=120)
        try:
            with Admin(nodes, ca=self._site.members_ca, timeout=within) as admin:
                admin.login(ADMINISTRATOR, PASSWORD)
                while not self._ends.is_set():
                    name = f"user-{len(self.added)}"
                    admin.create_user(name)
                    self.added.append(name)
        except Exception as error:  # noqa: BLE001 - the test looks at it.
            self.failures.append(error)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Begin a cluster of one."""
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        site.start_cluster()
        yield site
    finally:
        site.kill()


def standings(site: Site) -> dict[str, str]:
    """Return how far each node is, as a quorum knows it."""
    listed = site.admin("cluster", "members", "--output", "json")
    members = json.loads(listed.stdout)["members"] if listed.stdout else []
    return {member["node_id"]: member["standing"] for member in members}


def primary(site: Site) -> str:
    """Return the primary, if there is one."""
    seen = site.admin("cluster", "status", "--output", "json")
    return str(json.loads(seen.stdout)["primary"]) if seen.stdout else ""


def grow(site: Site, node_id: str) -> LocalNode:
    """Let a node join, start it, and wait until it votes."""
    machine = site.machine(node_id)
    # Any of them may be the one that stays, and then has to admit others.
    joined = site.join(machine, "--with-authority")
    assert joined.returncode == 0, joined.stderr
    assert standings(site)[node_id] in ("admitted", "learner")
    machine.start()
    until(lambda: standings(site).get(node_id) == "voter" or not machine.running)
    assert machine.running, machine.last_words()
    return machine


def reason_of(site: Site, machine: LocalNode) -> str:
    """Return why a machine answers no call; empty: it does."""
    with Admin(machine.admin_address, ca=site.members_ca) as admin:
        try:
            admin.login(ADMINISTRATOR, PASSWORD)
        except Unavailable as error:
            return error.reason
    return ""


def until_equal(site: Site) -> None:
    """Return once every member has the same state."""
    until(
        lambda: (
            "members have the same state"
            in site.admin("cluster", "status", "--digest").stdout
        )
    )


def test_one_becomes_three_under_load(site: Site) -> None:
    """(P5) No call fails meanwhile, and nothing that was acknowledged is missing."""
    with Load(site) as load:
        until(lambda: load.added or load.failures)
        grow(site, "n2")
        grow(site, "n3")
        seen = len(load.added)
        until(lambda: len(load.added) > seen + 3 or load.failures)
    assert load.failures == []
    until(lambda: standings(site) == dict.fromkeys(("n1", "n2", "n3"), "voter"))
    until_equal(site)
    for name in (load.added[0], load.added[-1]):
        assert site.admin("users", "show", name).returncode == 0
    shown = site.admin("cluster", "watch", "--count=1").stdout
    assert shown.count("replica") == 2


def test_doctor_knows_what_the_node_is(site: Site) -> None:
    """From its journal, whatever node.toml said when it began."""
    output = site.node(site.machines["n2"], "doctor").stdout
    assert "n2 is a voter; the voters are n1, n2, n3" in output
    assert "this node signs certificates for nodes that join" in output
    assert "n1 answers" in output
    assert "n3 answers" in output


def test_the_primary_leaves_after_it_has_handed_over(site: Site) -> None:
    """A removed node is refused for good: neither its ring nor its journal helps it."""
    until(lambda: primary(site))
    leaving = primary(site)
    removed = site.admin("cluster", "remove", leaving, "--yes")
    assert removed.returncode == 0, removed.stderr
    gone = site.machines[leaving]
    gone.stop()
    until(lambda: standings(site))  # Before the next election, no node tells.
    assert len(standings(site)) == 2
    assert leaving not in standings(site)
    gone.start()
    until(lambda: "removed" in gone.log.read_text())
    assert reason_of(site, gone) == "REMOVED"
    doctor = site.node(gone, "doctor")
    assert doctor.returncode == 1
    assert "docs/runbooks/removed-node.md" in " ".join(doctor.stdout.split())
    gone.kill()
    ticket = site.admin("cluster", "ticket", leaving, "n9:7301")
    assert ticket.returncode == 1
    assert "its id cannot be used again" in " ".join(ticket.stderr.split())


def test_a_dead_node_is_replaced_and_does_not_come_back(site: Site) -> None:
    """A machine that has lost its data joins as a new node; the old one is removed."""
    grow(site, "n4")
    until(lambda: primary(site))
    # The last one to join: n1 has founded the cluster, and no record says so.
    stays, dead = (each for each in sorted(standings(site)) if each != "n4")
    lost = site.machines[dead]
    lost.kill()
    shutil.rmtree(lost.directory / "data")
    lost.start()
    assert lost.wait(timeout_s=60) == 1
    assert "docs/runbooks/blank-node.md" in lost.last_words()
    doctor = " ".join(site.node(lost, "doctor").stdout.split())
    assert f"FAIL membership {lost.directory}/data has no data" in doctor
    failures = set(re.findall("FAIL ([a-z]+)", doctor))
    # A machine under load syncs slowly, and doctor says so. A member that knows the
    # journal already refuses this node, and doctor repeats it.
    assert failures - {"disk", "members"} == {"membership"}, doctor
    lost.key_ring.unlink()
    begun = site.node(lost, "init", f"--administrator={ADMINISTRATOR}")
    assert begun.returncode == 1
    assert "the certificate is of cluster" in begun.stderr
    wiped = site.admin("cluster", "ticket", dead, "n9:7301")
    assert wiped.returncode == 1
    assert "under a new node id" in " ".join(wiped.stderr.split())
    removed = site.admin("cluster", "remove", dead, "--yes")
    assert removed.returncode == 0, removed.stderr
    grow(site, "n5")
    assert standings(site) == dict.fromkeys(sorted({stays, "n4", "n5"}), "voter")
    until_equal(site)


def test_a_node_that_brings_everything_along_is_added_without_a_ticket(
    site: Site,
) -> None:
    """Certificate and ring came by another way: it must not begin a cluster itself."""
    other = site.machines["n5"]
    machine = site.machine("n6")
    tls = machine.directory / "tls"
    tls.mkdir()
    for name in ("members-ca.pem", "agents-ca.pem"):
        shutil.copy(other.directory / "tls" / name, tls)
    authority = Authority.from_pem(
        *(
            (other.directory / f"tls/members-ca.{end}").read_bytes()
            for end in ("pem", "key")
        )
    )
    issued = authority.issue_member(
        "n6", hosts=["127.0.0.1"], now=dt.datetime.now(dt.UTC)
    )
    (tls / "node.pem").write_bytes(issued.certificate)
    (tls / "node.key").write_bytes(issued.key)
    beside = f"--beside=n5={other.peers_address}"
    without = site.node(machine, "init", beside)
    assert without.returncode == 1
    assert "keyring.json" in without.stderr
    shutil.copy(other.key_ring, machine.key_ring)
    assert site.node(machine, "init", "--beside=n5").returncode == 2
    begun = site.node(machine, "init", beside)
    assert begun.returncode == 0, begun.stderr
    assert f"sparecode cluster add n6 {machine.peers_address}" in begun.stdout
    added = site.admin("cluster", "add", "n6", machine.peers_address)
    assert added.returncode == 0, added.stderr
    machine.start()
    until(lambda: standings(site).get("n6") == "voter" or not machine.running)
    assert machine.running, machine.last_words()
    until_equal(site)

# SPDX-License-Identifier: Apache-2.0
"""An entry that stops every node: docs/runbooks/poison-entry.md, on real processes (E3)."""

import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalCluster, LocalNode
from local_cluster.setup import set_up

from sparecode_client import (
    Admin,
    AuditFilter,
    MemberStanding,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from tests.faults.newcomers import begin_anew
from tests.system.estate import PATIENCE
from tests.system.machines import until
from tests.system.runbook_operator import Operator

POISON = Path(__file__).parent / "poison"
"""Makes a bug: adding the user `poison` stops a node."""


EXAMPLE = "6b51d431df5d7f141cbececcf79edf3dd861c3b4069f0b11661a3eefacbba918"
"""The digest on the page."""

REQUEST = str(uuid.uuid4())
"""The request that stops the nodes."""

SOON = timedelta(seconds=5)

LAST_LINE = re.compile(
    r"stopped: applying entry (\d+) failed: ZeroDivisionError in sitecustomize.py, .*"
    r" with 1 CreateUser, and SHA-256 ([0-9a-f]{64})"
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Return a cluster whose nodes have the bug."""
    made = set_up(tmp_path / "cluster", testing=True)
    try:
        for node in made.nodes:
            node.environment["PYTHONPATH"] = str(POISON)
        made.start()
        yield made
    finally:
        made.kill()


def fallen(*nodes: LocalNode) -> str:
    """Start nodes, and return the last words of the first one that stops itself."""
    for node in nodes:
        node.start()
    until(lambda: any(node.exit_code is not None for node in nodes))
    first = next(node for node in nodes if node.exit_code is not None)
    assert first.exit_code == 70
    for node in nodes:
        node.kill()
    return first.last_words()


def has_fallen(node: LocalNode) -> bool:
    """Return whether a node has stopped at the entry; start it again for the others."""
    if node.exit_code is not None:
        assert node.exit_code == 70
        node.kill()
        node.start()
    return LAST_LINE.search(node.log.read_text()) is not None


def entry_of(words: str) -> tuple[str, str]:
    """Return index and digest of the entry that last words name."""
    match = LAST_LINE.search(words)
    assert match, words
    return match[1], match[2]


def poison(cluster: LocalCluster) -> tuple[str, str]:
    """Add the user at whom every node stops; return the index and digest of the entry."""
    addresses = [node.admin_address for node in cluster.nodes]
    with Admin(addresses, ca=cluster.members_ca, timeout=PATIENCE) as admin:
        admin.login(ADMINISTRATOR, cluster.password)

        def is_in_doubt() -> bool:
            """Ask again if nothing was applied: there may be no primary for a moment."""
            try:
                admin.create_user("poison", request_id=REQUEST, within=SOON)
            except OutcomeUnknown:
                return True
            except Unavailable:
                return has_fallen(cluster.nodes[0])
            pytest.fail("no node stopped at the entry")

        until(is_in_doubt)
    until(lambda: not [node for node in cluster.nodes if not has_fallen(node)])
    cluster.kill()
    stops = {node.node_id: entry_of(node.log.read_text()) for node in cluster.nodes}
    ((index, digest),) = set(stops.values())
    return index, digest


def skip_entry(node: LocalNode, *arguments: object) -> str:
    """Run the tool on the machine of a node; return what it prints."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sparecode_node", "--config", node.config),
            *("skip-entry", *map(str, arguments)),
        ],
        env=node.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr


@pytest.mark.long
def test_an_entry_that_stops_every_node(cluster: LocalCluster, tmp_path: Path) -> None:
    """
    One statement is not enough, two are; the third node stops until it has them (E3).

    Afterwards all are alike, also one that was killed, and one that joins and has no
    statements. The operators are in the audit log.
    """
    operator = Operator(cluster, cluster.nodes[0], tmp_path)
    operator.sign_in()
    index, digest = poison(cluster)
    operator.examples = {"--index 38": f"--index {index}", EXAMPLE: digest}
    n1, n2, n3 = cluster.nodes
    entry = ("--index", index, "--digest", digest)
    signed = skip_entry(n2, *entry, "--reason", "bug", "--operator", "bob")
    assert "Signed in the name of n2" in signed
    (second,) = (n2.directory / "data/skips").glob("*-n2.statement")
    shutil.copy(second, operator.folder / "other.statement")
    shutil.copy(second, n3.directory / "data/skips")
    assert "1 of 2 statements" in fallen(n2, n3)

    def give_to_n2() -> None:
        (first,) = (n1.directory / "data/skips").glob("*-n1.statement")
        assert "Took the statement of n1" in skip_entry(n2, "--add", first)
        n2.start()

    operator.follow("poison-entry.md", cp=give_to_n2)
    cluster.wait_ready(n1, n2)
    (shown,) = operator.outputs["sparecode-node skip-entry"]
    assert f"stops at entry {index} of term" in shown
    assert "CreateUser of administrator:admin" in shown
    assert "n3 cannot be reached" in shown
    (n3.directory / "data/skips" / second.name).unlink()
    assert re.search(f"n[12] skips entry {index}, .* --add STATEMENT", fallen(n3))
    added = skip_entry(n3, *(f"--add={path}" for path in statements(n1)))
    assert "can apply or skip all of them" in added
    n2.kill()  # Its log begins behind the entry by now.
    for node in (n2, n3):
        node.start()
    cluster.wait_ready(n2, n3)
    assert_alike(operator, index)
    join_again(cluster, n3, "n4")
    assert statements(n3) == []
    assert_alike(operator, index)


def join_again(cluster: LocalCluster, node: LocalNode, new_id: str) -> None:
    """Remove a node, and let its empty machine join; return when it votes."""
    node.stop()
    others = [each.admin_address for each in cluster.nodes if each is not node]
    with Admin(others, ca=cluster.members_ca, timeout=timedelta(seconds=60)) as admin:
        admin.login(ADMINISTRATOR, cluster.password)
        admin.confirm_with(lambda _: cluster.password)
        admin.remove_member(node.node_id)
        ticket = admin.create_join_ticket(new_id, node.peers_address)
        begin_anew(node, new_id, ticket.ticket)
        node.start()

        def votes() -> bool:
            members = {each.node_id: each.standing for each in admin.list_members()}
            return members.get(new_id) is MemberStanding.VOTER

        until(lambda: votes() or not node.running)
    assert node.running, node.last_words()
    cluster.wait_ready()


def statements(node: LocalNode) -> list[Path]:
    """Return the files of all statements that a node has."""
    return sorted((node.directory / "data/skips").glob("*.statement"))


def assert_alike(operator: Operator, index: str) -> None:
    """See that all members have the same state, and that the audit log names both."""
    cluster = operator.cluster
    addresses = [node.admin_address for node in cluster.nodes]
    with Admin(addresses, ca=cluster.members_ca, timeout=PATIENCE) as admin:
        admin.login(ADMINISTRATOR, cluster.password)

        def digests() -> set[tuple[int, str]]:
            members = admin.get_status(digest=True).members
            return {(each.applied_index, each.digest) for each in members}

        def operators() -> set[str]:
            wanted = AuditFilter(action="NoteSkipStatement")
            return {each.actor for each in admin.list_audit_events(wanted).items}

        until(lambda: len(operators()) == 2)
        until(lambda: len(digests()) == 1)
        assert "operator:bob" in operators()
        (event,) = admin.list_audit_events(AuditFilter(action="ENTRY_SKIPPED")).items
        assert event.target == f"entry {index}"
        with pytest.raises(Refused) as refused:
            admin.create_user("poison", request_id=REQUEST)
        assert refused.value.reason == "ENTRY_SKIPPED"

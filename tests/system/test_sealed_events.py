# SPDX-License-Identifier: Apache-2.0
"""Sealed audit events on real processes: all machines are replaced, and none is lost (U1)."""

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalNode

from sparecode_client import Admin
from tests.system import machines
from tests.system.machines import PASSWORD, Site, until
from tests.system.test_cluster_growth import primary, standings

pytestmark = pytest.mark.timeout(600)

SHORT = Path(__file__).parent / "short_segments"
"""Makes segments of ten events."""
RAFT = "[raft]\nlog_entries_max = 24\nlog_entries_kept = 8\n"
"""Nodes that join get a snapshot."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Begin a cluster of one."""
    site = Site(tmp_path)
    archive = tmp_path / "archive"
    archive.mkdir()
    section = f'[audit]\narchive = "{archive}"\n'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SHORT))
        patch.setattr(machines, "_TOML", machines._TOML + RAFT + section)
        try:
            site.start_cluster()
            yield site
        finally:
            site.kill()


def grow(site: Site, node_id: str) -> LocalNode:
    """Let a node join, start it, and wait until it votes."""
    machine = site.machine(node_id)
    joined = site.join(machine, "--with-authority")
    assert joined.returncode == 0, joined.stderr
    machine.start()
    until(lambda: standings(site).get(node_id) == "voter" or not machine.running)
    assert machine.running, machine.last_words()
    return machine


def in_state(machine: LocalNode) -> int:
    """Return the first audit event in the state's own database."""
    with contextlib.closing(sqlite3.connect(machine.directory / "data/state.db")) as db:
        return int(db.execute("SELECT min(sequence) FROM audit_events").fetchone()[0])


def stored(machine: LocalNode) -> int:
    """Return how many segments a machine has stored."""
    file = machine.directory / "data/state-audit.db"
    with contextlib.closing(sqlite3.connect(file)) as db:
        return int(db.execute("SELECT count(*) FROM stored_segments").fetchone()[0])


def newest_snapshot(machine: LocalNode) -> int:
    """Return the index of the newest snapshot, by the machine's log; 0: there is none."""
    lines = map(json.loads, machine.log.read_text().splitlines())
    taken = [line["index"] for line in lines if line["message"] == "snapshot_taken"]
    return int(taken[-1]) if taken else 0


def members(site: Site) -> list[dict[str, Any]]:
    """Return the status of each member; empty: no node could tell now."""
    status = site.admin("cluster", "status", "--output", "json").stdout
    found: list[dict[str, Any]] = json.loads(status)["members"] if status else []
    return found


def missing(site: Site) -> dict[str, str]:
    """Return the segments that each member lacks; empty: no node could tell now."""
    return {each["node_id"]: each["missing_segments"] for each in members(site)}


def add_users(site: Site, last: int, *, first: int = 0) -> None:
    (machine,) = site.machines.values()
    with Admin(machine.admin_address, ca=site.members_ca) as admin:
        admin.login(ADMINISTRATOR, PASSWORD)
        for number in range(first, last):
            admin.create_user(f"user-{number}")


def metrics(machine: LocalNode) -> str:
    """Return what monitoring reads from a machine."""
    return httpx.get(f"http://{machine.metrics_address}/metrics").text


def test_what_a_node_has_archived_is_proved_without_it(
    site: Site, tmp_path: Path
) -> None:
    """(U2) By anyone with the public key, after the cluster is gone."""
    (machine,) = site.machines.values()
    add_users(site, 20)
    until(lambda: len(list((tmp_path / "archive").glob("*.checkpoint.json"))) >= 2)
    until(lambda: "\nsparecode_audit_segments_unarchived 0.0\n" in metrics(machine))
    (tmp_path / "archive").rename(tmp_path / "unmounted")
    add_users(site, 30, first=20)
    until(lambda: "No such file or directory" in site.admin("cluster", "status").stdout)
    (tmp_path / "unmounted").rename(tmp_path / "archive")
    outside = tmp_path / "outside"
    outside.mkdir()
    written = site.admin("audit", "write-archive", str(outside))
    assert written.returncode == 0, written.stderr
    machine.kill()
    for each in sorted((tmp_path / "archive").glob("*.jsonl"))[:2]:
        assert (outside / each.name).read_bytes() == each.read_bytes()
    verified = site.admin(
        *("audit", "verify", "--archive", str(tmp_path / "archive")),
        *("--output", "json"),
    )
    assert verified.returncode == 0, verified.stderr
    answer = json.loads(verified.stdout)
    assert answer["first"] == 1
    assert answer["proved_up_to"] >= 20
    assert answer["problem"] is None
    proved = site.admin("audit", "verify", "--archive", str(outside))
    assert proved.returncode == 0, proved.stderr


def spoil_and_wait(machine: LocalNode) -> None:
    """Change an event in a machine's file; wait until it is named and mended."""
    file = machine.directory / "data/state-audit.db"
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE audit_events SET detail = 'x' WHERE sequence = 3")
        db.commit()
    until(lambda: "segment 1 is damaged" in machine.log.read_text())

    def mended() -> bool:
        with contextlib.closing(sqlite3.connect(file)) as db:
            (detail,) = db.execute(
                "SELECT detail FROM audit_events WHERE sequence = 3"
            ).fetchone()
        return bool(detail != "x")

    until(mended)


@pytest.mark.long
def test_all_machines_are_replaced_one_after_the_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    (U1, U5) Nodes vote before they have all segments, and the last holder of one stays.

    A rotten segment is named and comes from another member again.
    """
    first = site.machines["n1"]
    add_users(site, 30)
    until(lambda: stored(first) >= 3)

    def discarded() -> bool:
        site.admin("users", "show", "user-0")
        return in_state(first) > 20

    until(discarded)
    applied = members(site)[0]["applied_index"]

    later = itertools.count()

    def has_newer_snapshot() -> bool:
        site.admin("users", "create", f"later-{next(later)}")
        return newest_snapshot(first) >= applied

    until(has_newer_snapshot)
    with monkeypatch.context() as patch:
        patch.setenv("SEGMENT_REST", "1000000")  # As after years of events.
        second = grow(site, "n2")
    assert stored(second) < 3, "it votes already"
    removed = site.admin("cluster", "remove", "n1", "--yes")
    assert removed.returncode != 0
    assert "is the only member with segments" in removed.stderr
    second.kill()
    del second.environment["SEGMENT_REST"]
    second.start()
    until(lambda: missing(site) == {"n1": "", "n2": ""})
    assert "segment_fetched" in second.log.read_text(), "its snapshot lacked them"
    assert stored(second) >= 3
    spoil_and_wait(second)
    until(lambda: missing(site) == {"n1": "", "n2": ""})
    until(lambda: primary(site))
    removed = site.admin("cluster", "remove", "n1", "--yes")
    assert removed.returncode == 0, removed.stderr
    first.kill()
    until(lambda: primary(site))  # It may have led until now.
    checked = site.admin("audit", "check")
    assert checked.returncode == 0, checked.stderr
    third = grow(site, "n3")
    until(lambda: stored(third) >= 3 and missing(site).get("n3") == "")
    until(lambda: primary(site))
    removed = site.admin("cluster", "remove", "n2", "--yes")
    assert removed.returncode == 0, removed.stderr
    second.kill()
    until(lambda: primary(site))
    checked = site.admin("audit", "check", "--output", "json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["problem"] == ""
    oldest = site.admin("audit", "list", "--from", "1", "--output", "json")
    assert '"sequence": 1' in oldest.stdout or '"sequence":1' in oldest.stdout

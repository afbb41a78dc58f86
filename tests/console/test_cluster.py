# SPDX-License-Identifier: Apache-2.0
"""An operator's work in the console: members, backups, the key."""

import asyncio
import contextlib
import dataclasses
import io
import sqlite3
import tarfile
from contextlib import aclosing
from pathlib import Path

import pyrage
import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from sparecode_node.console.pages import backups, membership
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import ArchiveReport
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.domain.segments import Holding
from sparecode_node.queries import seals
from sparecode_node.replication.errors import (
    NoQuorumError,
    RemovedError,
    StoppingError,
)
from sparecode_node.replication.links.key_exchange import CannotHoldError
from sparecode_node.rpc.tickets import from_text
from sparecode_node.statemachine.snapshots import SnapshotFacts
from sparecode_node.statemachine.tables import archives, segments
from tests.console.desk import Desk
from tests.console.test_pages import with_role
from tests.services.two_replicas import NODE, TwoReplicas

pytestmark = pytest.mark.asyncio


async def test_the_primary_role_is_transferred(desk: Desk) -> None:
    """A page asks first; an unknown member is refused beside the field."""
    browser = await desk.administrator()
    page = await browser.open("/cluster")
    assert "1 of 3 nodes down" in page.text
    await browser.open("/cluster/primary")
    page = await browser.send("Transfer", target="n9")
    assert page.status == 404
    assert 'id="target-problem"' in page.response.text
    page = await browser.send("Transfer", target="")
    assert page.path == "/cluster"
    assert "n3 is the primary now" in page.text
    assert desk.node.replicator.transfers == [None]


async def test_a_ticket_is_shown_once_and_downloaded(desk: Desk) -> None:
    """(P5) The file has the same ticket; no address and no later page has it."""
    browser = await desk.administrator()
    await browser.open("/cluster")
    await browser.open(browser.page.links["Add a node"])
    page = await browser.send("Make a ticket", node_id="n1", address="n4:7301")
    assert page.status == 409
    assert "n1 is already a member" in page.text
    assert page.form("/cluster/ticket").value("node_id") == "n1"
    page = await browser.send("Make a ticket", node_id="n 4")
    assert page.status == 422
    page = await browser.send("Make a ticket", node_id="n4", address="n4 7301")
    assert page.status == 422
    assert 'id="address-problem"' in page.response.text
    page = await browser.send(
        "Make a ticket",
        node_id="n4",
        address="n4:7301",
        hosts="n4.example 10.0.0.4",
        tick={"with_authority": "on"},
    )
    assert "and the keys of the authorities" in page.text
    assert page.response.headers["cache-control"] == "no-store"
    (text,) = [each for each in page.text.split() if each.startswith("sparecode-join-")]
    assert from_text(text).node_id == "n4"
    file = await browser.send("Download n4.ticket")
    assert file.response.headers["cache-control"] == "no-store"
    assert file.response.headers["content-disposition"] == (
        'attachment; filename="n4.ticket"'
    )
    assert file.response.text.strip() == text
    for path in ("/cluster/ticket", "/cluster"):
        assert text not in (await browser.open(path)).response.text
    made = desk.node.primary_db.execute(
        "SELECT address, hosts, with_authority FROM join_tickets"
    ).fetchall()
    assert made == [("n4:7301", '["10.0.0.4","n4.example"]', 1)]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("missing", "No recovery bundle."),
        ("outdated", "The recovery bundle is outdated."),
        ("current", ""),
        ("not_here", ""),
    ],
)
async def test_the_dashboard_reminds_of_a_recovery_bundle(
    desk: Desk, state: str, words: str
) -> None:
    """(P5) Without one, the loss of one machine is the loss of the authorities."""
    desk.node.replicator.recovery_bundle = state
    browser = await with_role(desk, Role.OPERATOR)
    page = await browser.open("/")
    assert words in page.text
    assert ("recovery bundle" in page.text.lower()) == bool(words)


def add_segments(db: sqlite3.Connection, count: int) -> None:
    """Add rows of sealed segments, each of twenty events."""
    db.executemany(
        "INSERT INTO audit_segments (number, first_sequence, last_sequence, "
        "first_at_ms, last_at_ms, hash_before, hash_after) "
        "VALUES (?, ?, ?, 1, 1, zeroblob(32), zeroblob(32))",
        [(each, 20 * each - 19, 20 * each) for each in range(1, count + 1)],
    )


async def test_missing_and_lost_audit_events_are_named(desk: Desk) -> None:
    """(U1) On the dashboard and on the page of the cluster."""
    browser = await with_role(desk, Role.OPERATOR)
    for path in ("/", "/cluster"):
        text = (await browser.open(path)).text
        assert "Older audit events" not in text
        assert "declared lost" not in text
    db = desk.node.local_db
    add_segments(db, 2)
    db.execute("INSERT INTO lost_segments VALUES (1, 7, 'r')")
    segments.save_holding(db, NODE, Holding(through=0), 1)
    db.commit()
    for path in ("/", "/cluster"):
        page = await browser.open(path)
        assert f"Older audit events are missing on {NODE}." in page.text
        assert "It lacks the segments 2, and fetches them" in page.text
        assert "Segments 1 of the audit log were declared lost." in page.text
        assert "after all" not in page.text
    segments.save_holding(db, NodeId("n2"), Holding(through=1), 1)
    db.commit()
    page = await browser.open("/cluster")
    assert "A member has segments 1 after all; the others fetch them." in page.text


async def test_archives_that_do_not_work_or_are_behind_are_named(desk: Desk) -> None:
    """(U2) Also without a retention; what a member says is no markup."""
    browser = await with_role(desk, Role.OPERATOR)
    db = desk.node.local_db
    add_segments(db, 3)
    db.commit()
    desk.node.replicator.archives[NODE] = ArchiveReport(
        place="/srv/<b>a</b>", problem="No <b>space</b> left on device"
    )
    archives.save(db, "node:n2", "/mnt", desk.node.clock.now_ms(), new=(1, 2))
    archives.save(db, "node:n3", "/arc", desk.node.clock.now_ms(), new=(1, 2, 3))
    db.commit()
    for path in ("/", "/cluster"):
        page = await browser.open(path)
        assert (
            f"The archive of {NODE} does not work. It is in /srv/<b>a</b>. No <b>space"
            "</b> left on device. It lacks the segments 1 to 3." in page.text
        )
        assert "<b>space" not in page.response.text
        assert (
            "The archive of n2 is behind. In /mnt it lacks the segments 3, which were "
            "sealed more than two hours ago." in page.text
        )
        assert "The archive of n3" not in page.text
        assert "not yet in as many archives" not in page.text


async def test_nodes_that_archive_to_one_folder_are_named(desk: Desk) -> None:
    """(U2) They are one copy: one lost disk takes it from all of them."""
    browser = await with_role(desk, Role.OPERATOR)
    now_ms = desk.node.clock.now_ms()
    folders = {
        "n1": "a",
        "n2": "b",
        "n3": "a",
        "n4": "",
        "n5": "c",
        "n6": "c",
        "n7": "c",
    }
    for node_id, folder in folders.items():
        archives.save(
            desk.node.local_db,
            f"node:{node_id}",
            "/mnt",
            now_ms,
            new=(1,),
            folder=32 * folder,
        )
    desk.node.local_db.commit()
    page = await browser.open("/cluster")
    for names in ("n1 and n3", "n5, n6 and n7"):
        assert (
            f"{names} archive the audit log to one folder, which counts as one archive: "
            "give one of them another folder." in page.text
        )
    assert page.text.count("archive the audit log to one folder") == 2


async def test_unarchived_and_removed_audit_events_are_named(desk: Desk) -> None:
    """(U4) A place is what a node or an administrator wrote: it is no markup."""
    browser = await with_role(desk, Role.OPERATOR)
    db = desk.node.local_db
    add_segments(db, 4)
    now_ms = desk.node.clock.now_ms()
    own, other = 32 * "1", 32 * "2"
    archives.save(db, "node:n1", "/srv/<b>a</b>", now_ms, new=(3, 4), folder=own)
    archives.save(db, "node:n2", "/mnt", now_ms, new=(3,), folder=other)
    archiver = archives.Copy(archiver="node:n1", place="/srv/<b>a</b>")
    archives.remove(db, 2, now_ms, [archiver])
    db.commit()
    # Without a retention, the number of copies plays no role.
    assert "not yet in as many archives" not in (await browser.open("/cluster")).text
    await desk.node.policies.update(
        desk.node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={"second_approver": False, "audit_retention_ms": 90 * DAY_MS},
    )
    for path in ("/", "/cluster"):
        page = await browser.open(path)
        assert (
            "Segments 4 of the audit log are not yet in as many archives as the policy "
            "wants (2)." in page.text
        )
        assert (
            "Retention has removed segments 1 to 2 of the audit log (events 1 to 40). "
            "They are archived by node:n1 (/srv/<b>a</b>)." in page.text
        )
        assert "<b>a</b>" not in page.response.text
    archives.save(db, "node:n2", "/mnt", now_ms, new=(4,), folder=other)
    db.commit()
    for path in ("/", "/cluster"):
        assert "not yet in as many archives" not in (await browser.open(path)).text


async def test_a_node_is_added_without_a_ticket(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open("/cluster/add")
    page = await browser.send("Add node", node_id="n4", address="nowhere")
    assert page.status == 422
    assert 'id="address-problem"' in page.response.text
    assert page.form("/cluster/add").value("node_id") == "n4"
    page = await browser.send("Add node", address="n4.example.com:7301")
    assert page.path == "/cluster"
    assert "n4 is admitted" in page.text
    assert "Admitted" in page.text
    assert "n4.example.com:7301" in page.text


async def test_a_member_is_removed_after_a_page_with_the_consequences(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one of three down, removing another would leave no quorum: the page says so."""
    browser = await desk.administrator()
    page = await browser.open("/cluster/members/n0/remove")
    assert "Afterwards 2 nodes vote, and 2 of them must be in contact" in page.text
    assert "Only 1 of them is in contact now, as seen by n1" in page.text
    page = await browser.open("/cluster/members/n3/remove")
    assert "None may be down." in page.text
    monkeypatch.setattr(membership, "REMOVE_S", 0.3)
    desk.node.replicator.not_ready = 10**6
    page = await browser.send("Remove n3 permanently", confirm="n2")
    assert page.status == 422
    assert "Type n3 to confirm that it leaves." in page.text
    assert not desk.node.replicator.changes
    page = await browser.send("Remove n3 permanently", confirm="n3")
    assert page.status == 409
    assert "Only n2 is in contact" in page.text
    desk.node.replicator.not_ready = 0
    page = await browser.send("Remove n3 permanently", confirm="n3")
    assert page.path == "/cluster"
    assert "n3 is no longer a member. Stop it and wipe its disk" in page.text
    assert desk.node.replicator.changes[-1] == ("remove_member", NodeId("n3"))


async def test_a_node_is_removed_through_its_own_console(desk: Desk) -> None:
    """Its last page links to the other consoles."""
    browser = await desk.administrator()
    await browser.open("/cluster/members/n1/remove")
    page = await browser.send("Remove n1 permanently", confirm="n1")
    assert page.status == 200
    assert "continue on another node’s console" in page.text
    assert {"n2", "n3"} <= page.links.keys()


async def test_console_of_a_removed_node_shows_nothing_else(desk: Desk) -> None:
    """Neither its old state nor a form; it links to the other consoles."""
    browser = await desk.administrator()
    desk.node.replicator.down = RemovedError(NODE)
    for path in ("/", "/users", "/cluster", "/sign-in"):
        page = await browser.open(path)
        assert page.status == 503
        assert "This node was removed from the cluster" in page.text
        assert "alice" not in page.text.lower()
        assert {"n2", "n3"} <= page.links.keys()


async def test_an_unknown_member_cannot_be_removed(desk: Desk) -> None:
    browser = await desk.administrator()
    page = await browser.open("/cluster/members/n77/remove")
    assert page.status == 404
    assert "There is no member n77" in page.text


async def test_a_backup_is_downloaded_and_recorded(desk: Desk) -> None:
    """Complete, encrypted to the policy's recipient, with everything committed so far."""
    identity = pyrage.x25519.Identity.generate()
    browser = await desk.administrator()
    page = await browser.open("/backups")
    assert "None yet" in page.text
    assert "names no recipient" in page.text
    await browser.open("/policy")
    await browser.send("Save", backup_recipients=str(identity.to_public()))
    page = await browser.open("/backups")
    file = await browser.send("Take and download")
    assert file.status == 200
    assert file.response.headers["cache-control"] == "no-store"
    assert file.response.headers["content-disposition"] == (
        'attachment; filename="2023-11-14T221320Z.backup"'
    )
    with tarfile.open(fileobj=io.BytesIO(file.response.content)) as archive:
        names = archive.getnames()
        state = archive.extractfile(names[-1])
        assert state is not None
        plain = pyrage.decrypt(state.read(), [identity])
    assert plain.startswith(b"SQLite format 3")
    page = await browser.open("/backups")
    assert "just now" in page.text
    assert str(identity.to_public()) in page.text


@pytest.mark.parametrize("stalls", [True, False])
async def test_a_stalled_download_does_not_block_the_next_backup(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, stalls: bool
) -> None:
    """It stalls or disconnects: the next backup can be taken; this one is not recorded."""
    monkeypatch.setattr(backups, "DOWNLOAD_S", 0.01)
    node = desk.node
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={
            "backup_recipients": str(pyrage.x25519.Identity.generate().to_public())
        },
    )
    never = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            if not stalls:
                raise OSError("gone")
            await never.wait()

    async def receive() -> Message:
        await never.wait()
        raise AssertionError("the request has no end")

    pieces = await node.backups.create(node.admin(backups.CREATE))
    download = backups.Download(await anext(pieces), pieces)
    scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
    with contextlib.suppress(ClientDisconnect):
        await download(scope, receive, send)
    again = await node.backups.create(node.admin(backups.CREATE))
    async with aclosing(again):
        assert (await anext(again)).offset == 0
    noted = node.primary_db.execute("SELECT 1 FROM meta WHERE name = 'backup_at_ms'")
    assert noted.fetchone() is None


async def test_a_backup_that_nobody_could_open_is_refused(desk: Desk) -> None:
    """An operator, who cannot see the policy, learns what it lacks."""
    browser = await with_role(desk, Role.OPERATOR)
    await browser.open("/backups")
    page = await browser.send("Take and download")
    assert page.status == 409
    assert "The policy names no recipient who could open a backup" in page.text


async def test_a_node_that_stops_takes_no_backup(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page points to other nodes."""

    def stopping(_: Path) -> SnapshotFacts:
        raise StoppingError

    node = desk.node
    source = dataclasses.replace(node.backups._source, write_whole=stopping)
    monkeypatch.setattr(node.backups, "_source", source)
    browser = await desk.administrator()
    await browser.open("/policy")
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    await browser.send("Save", backup_recipients=recipient)
    await browser.open("/backups")
    page = await browser.send("Take and download")
    assert page.status == 503
    assert "This node is stopping. Try again on another" in page.text
    assert not list(source.directory.glob("backup.*"))


async def test_without_a_quorum_the_last_backup_is_known(desk: Desk) -> None:
    browser = await with_role(desk, Role.OPERATOR)
    await browser.open("/backups")
    desk.node.replicator.down = NoQuorumError("down")
    page = await browser.send("Take and download")
    assert page.status == 503
    assert "Last backup" in page.text
    assert (await browser.open("/keys")).status == 200


async def test_the_page_follows_a_key_rotation(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    (T3, P5) The rotation starts on this node and runs on the primary.

    The page shows its progress.
    """
    node = desk.node
    browser = await desk.administrator()
    page = await browser.open("/keys")
    assert "Key 1" in page.text
    assert "No rotation" in page.text
    page = await browser.send("Replace the key", tick={"keep_old_key": "on"})
    assert page.path == "/keys"
    assert "Key 2 is active on all nodes" in page.text
    assert "Sealing everything with the new key" in page.text
    assert "Replace the key" not in page.buttons
    assert 'hx-trigger="every 1s"' in page.response.text
    # The form below the progress is refreshed too, so it returns by itself.
    assert 'hx-select-oob="#rotation"' in page.response.text
    async with node.state.transaction() as transaction:
        node.key_holder.follow(await seals.keys(transaction))
    monkeypatch.setattr(TwoReplicas, "primary", NODE)
    while await node.resealer.step():
        pass
    page = await browser.open("/keys")
    assert "Everything is sealed with key 2" in page.text
    assert "the old key is removed in 1" in page.text
    # Not from here on: a refresh would clear checkboxes while the user ticks them.
    assert "hx-select-oob" not in page.response.text
    page = await browser.open("/keys?watching=1")
    node.clock.pass_s(16 * 60)
    while await node.resealer.step():
        pass
    browser = await desk.administrator()
    browser = await desk.administrator()  # The unused session has ended.
    page = await browser.open("/keys")
    assert "No rotation" in page.text
    assert "hx-trigger" not in page.response.text
    assert await node.accepts("4719" + node.tokencode())


async def test_a_key_that_a_member_cannot_hold_is_not_activated(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkboxes stay ticked, and the page names the member and the reason."""

    async def hold(*_: object, **__: object) -> bytes:
        raise CannotHoldError("the key ring of n1 is read-only")

    monkeypatch.setattr(desk.node.key_holder, "hold", hold)
    browser = await desk.administrator()
    await browser.open("/keys")
    page = await browser.send("Replace the key", tick={"at_once": "on"})
    assert page.status == 409
    assert "The key ring of n1 is read-only" in page.text
    assert "Key 1" in page.text
    assert page.form("/keys").values("at_once") == ["on"]

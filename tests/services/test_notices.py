# SPDX-License-Identifier: Apache-2.0
"""Notices: written with their events, delivered at least once, to a real receiver (N)."""

import contextlib
import datetime as dt
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from standardwebhooks import Webhook

from sparecode_client.values.notices import new_webhook_secret
from sparecode_node.daemon.metrics.events import EventCounts, Queue
from sparecode_node.domain.ids import NameKey
from sparecode_node.domain.notices import GIVE_UP_MS, ChannelKind, EventClass
from sparecode_node.domain.outcomes import Reason
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.notices import addresses, delivery, webhook
from sparecode_node.services.notices.addresses import IpAddress, checked, parse_url
from sparecode_node.services.notices.delivery import Lane
from sparecode_node.services.notices.outcomes import Attempt, ChannelChangedError
from sparecode_node.services.notices.waits import RETRY_MAX_S
from sparecode_node.services.notices.webhook import WebhookSender
from sparecode_node.services.secrets.channel_seals import ChannelSeals
from sparecode_node.statemachine import outbox
from sparecode_node.statemachine.commands.notices import FailNotices
from tests.services.one_node import PIN, OneNode
from tests.services.receiver import AUTHORITY, OK, Receiver, receiver
from tests.services.test_rotation import begin, finish
from tests.services.two_replicas import NODE

pytestmark = pytest.mark.asyncio

CREATE, UPDATE = "NoticeService/CreateChannel", "NoticeService/UpdateChannel"
SECRET = new_webhook_secret()
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The ids of sets are random, and may hold any digits."""
STATUS = "HTTP/1.1 {} X\r\nContent-Length: 0\r\n\r\n"


@pytest_asyncio.fixture
async def hook(node: OneNode, tmp_path: Path) -> AsyncIterator[Receiver]:
    """Return a receiver of webhooks."""
    async with receiver(tmp_path) as started:
        yield started
        for channel in list(node.delivery._lanes):
            await node.delivery._end(channel)


async def create(node: OneNode, url: str, **settings: object) -> None:
    await node.channels.create(
        node.admin(CREATE),
        **{
            "name": "siem",
            "kind": ChannelKind.WEBHOOK,
            "address": url,
            "classes": [EventClass.TOKENS],
            "secret": SECRET,
            "allow_private": True,
            "authority": AUTHORITY.pem.decode(),
            **settings,
        },
    )


async def add_users(node: OneNode, *names: str) -> None:
    for name in names:
        await node.users.create(
            node.admin("UserService/CreateUser"),
            username=name,
            display_name="",
            email="",
        )


async def idle(_lane: Lane) -> None:
    """Take no step: the tests take them, and two would deliver the same notices."""


async def lane(node: OneNode) -> Lane:
    """Return the lane of the channel on a node that has become the primary."""
    node.replicator.leads = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_run", idle)
        for _ in range(2):
            await node.delivery.step()
    return node.delivery._lanes["siem"]


def waiting(node: OneNode) -> list[tuple[str, bool, str]]:
    rows = node.primary_db.execute(
        "SELECT action, dead, cause FROM notices ORDER BY number"
    )
    return [(action, bool(dead), cause) for action, dead, cause in rows]


async def test_each_event_arrives_once_signed_as_a_cloud_event(
    node: OneNode, hook: Receiver
) -> None:
    """(N1, N2) The receiver's own library verifies it."""
    await create(node, hook.url)
    await add_users(node, "alice", "bob")
    with pytest.raises(Refused):
        await add_users(node, "alice")
    working = await lane(node)
    await working.step()
    assert not await working.step()
    assert len(hook.requests) == len(set(hook.ids)) == 3
    cluster = node.sealing.cluster_id
    assert all(each.startswith(f"{cluster}-") for each in hook.ids)
    events = []
    for headers, body in hook.requests:
        now = dt.datetime.now(dt.UTC)
        fresh = Webhook(SECRET).sign(headers["webhook-id"], now, body.decode())
        told = dt.datetime.fromtimestamp(int(headers["webhook-timestamp"]), tz=dt.UTC)
        assert told == dt.datetime.fromtimestamp(node.clock.now // 1000, tz=dt.UTC)
        signed = Webhook(SECRET).sign(headers["webhook-id"], told, body.decode())
        assert headers["webhook-signature"] == signed
        # The library refuses old timestamps, and the clock of this test stands.
        verified = Webhook(SECRET).verify(
            body,
            {
                **headers,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": fresh,
            },
        )
        assert headers["content-type"].startswith("application/cloudevents+json")
        assert verified["id"] == headers["webhook-id"]
        assert verified["specversion"] == "1.0"
        events.append((verified["subject"], verified["data"]["outcome"]))
    assert sorted(events) == [
        ("alice", "applied"),
        ("alice", "refused"),
        ("bob", "applied"),
    ]
    assert waiting(node) == []


async def test_the_secret_is_sealed_in_state_and_log(
    node: OneNode, hook: Receiver
) -> None:
    """(N3) Neither the database nor an entry of the log has it."""
    await create(node, hook.url)
    stored = "\n".join(node.primary_db.iterdump()).encode()
    for place in (stored, *node.replicator.entries):
        assert SECRET.encode() not in place
        assert SECRET.encode().hex().encode() not in place.lower()
    (found,) = (
        await node.channels.list(node.admin("NoticeService/ListChannels"))
    ).value
    assert SECRET not in repr(found)
    node.replicator.leads = True
    await begin(node)
    await finish(node)
    seals = ChannelSeals(node.ring)
    (now,) = (await node.channels.list(node.admin("NoticeService/ListChannels"))).value
    assert now.channel.key_id != found.channel.key_id
    assert (
        seals.unseal_channel_secret(
            now.channel.channel, now.channel.sealed_secret, now.channel.key_id
        )
        == SECRET
    )


async def test_no_notice_has_a_pin_a_code_or_a_seed(
    node: OneNode, hook: Receiver
) -> None:
    """(N3) Though a channel tells everything."""
    await create(node, hook.url, classes=list(EventClass))
    await node.add_user()
    codes = [each.code for each in (await node.issue()).codes]
    assert await node.accepts(PIN + codes[0])
    assert not await node.accepts("9999" + codes[1])
    assert not await node.accepts(PIN, username=f"{PIN}{codes[2]}")
    await (await lane(node)).step()
    told = b"\n".join(body for _, body in hook.requests).decode().lower()
    assert "saveemergencyaccess" in told
    assert "authenticate" in told
    for code in codes:
        assert code.lower() not in told
        assert code.replace("-", "").lower() not in told
    words = "".join(
        json.loads(body)["data"]["detail"] + json.loads(body)["data"]["target"]
        for _, body in hook.requests
    )
    assert PIN not in UUID.sub("", words)


def lose_quorum(node: OneNode) -> bytes:
    """Take a notice at the moment in which its primary loses the quorum."""
    node.replicator.down = NoQuorumError()
    return OK


async def test_another_primary_repeats_what_was_not_acknowledged(
    node: OneNode, hook: Receiver
) -> None:
    """(N2) Under the same id."""
    await create(node, hook.url)
    await add_users(node, "alice")
    working = await lane(node)
    hook.answer = lambda _: lose_quorum(node)
    with pytest.raises(NoQuorumError):
        await working.step()
    node.replicator.down = None
    node.replicator.leads = False
    await node.delivery.step()
    assert node.delivery._lanes == {}
    hook.answer = lambda _: OK
    await (await lane(node)).step()
    assert len(hook.ids) == 2
    assert len(set(hook.ids)) == 1
    assert waiting(node) == []


async def test_a_primary_acknowledges_later_without_a_repetition(
    node: OneNode, hook: Receiver
) -> None:
    """(N2) While it stays the primary."""
    await create(node, hook.url)
    await add_users(node, "alice")
    working = await lane(node)
    hook.answer = lambda _: lose_quorum(node)
    with pytest.raises(NoQuorumError):
        await working.step()
    node.replicator.down = None
    await working.step()
    assert len(hook.ids) == 1
    assert waiting(node) == []


async def test_a_change_of_the_channel_leaves_nothing_undelivered(
    node: OneNode, hook: Receiver, tmp_path: Path
) -> None:
    """(N2) What the earlier receiver has got does not count for the later one."""
    await create(node, hook.url)
    await add_users(node, "alice")
    working = await lane(node)
    hook.answer = lambda _: lose_quorum(node)
    with pytest.raises(NoQuorumError):
        await working.step()
    node.replicator.down = None
    async with receiver(tmp_path) as later:
        await node.channels.update(node.admin(UPDATE), name="siem", address=later.url)
        with pytest.raises(ChannelChangedError):
            await working.step()
        assert not await working.work()
        await (await lane(node)).step()
        assert later.ids == hook.ids
        await node.delivery._end("siem")
    assert waiting(node) == []


async def test_a_new_primary_first_applies_what_came_before(
    node: OneNode, hook: Receiver
) -> None:
    """(N2) Otherwise it repeats what is acknowledged, and tells what was dropped."""
    await create(node, hook.url)
    await add_users(node, "alice")
    node.replicator.lags = True
    await node.users.delete(node.admin("UserService/DeleteUser"), username="alice")
    node.replicator.down = NoQuorumError()
    node.replicator.leads = True
    await node.delivery.step()
    assert node.delivery._lanes == {}
    node.replicator.down = None
    await (await lane(node)).step()
    assert len(hook.ids) == 2


async def test_a_primary_that_leads_again_first_applies_what_came_between(
    node: OneNode, hook: Receiver
) -> None:
    """(N2) Another one led for so short a time that this node has not looked."""
    await create(node, hook.url)
    before = await lane(node)
    await add_users(node, "alice")
    node.replicator.lags = True
    node.replicator.term += 1
    await node.users.delete(node.admin("UserService/DeleteUser"), username="alice")
    node.replicator.term += 1
    assert not await before.step(), "it would read the same notices at once"
    assert hook.ids == []
    await node.delivery.step()
    assert node.delivery._lanes == {}
    node.replicator.down = NoQuorumError()
    await node.delivery.step()
    assert node.delivery._lanes == {}
    node.replicator.down = None
    await (await lane(node)).step()
    assert len(hook.ids) == 2


async def test_a_replica_and_a_restored_cluster_deliver_nothing(
    node: OneNode, hook: Receiver
) -> None:
    """(N2, E2) Until it is opened, another cluster may deliver."""
    await create(node, hook.url)
    await node.delivery.step()
    assert node.delivery._lanes == {}
    node.replicator.leads = True
    node.local_db.execute("INSERT INTO meta VALUES ('not_open', 1)")
    node.local_db.commit()
    await node.delivery.step()
    assert node.delivery._lanes == {}


async def test_a_refused_notice_waits_and_holds_up_no_other(
    node: OneNode, hook: Receiver
) -> None:
    """(N2) It becomes a dead letter after three days, and is sent again by hand."""
    await create(node, hook.url)
    await add_users(node, "alice", "bob")
    hook.answer = lambda _: STATUS.format(500).encode() if "alice" in last(hook) else OK
    working = await lane(node)
    await working.step()
    assert [action for action, *_ in waiting(node)] == ["CreateUser"]
    tried = len(hook.requests)
    await working.step()
    assert len(hook.requests) == tried, "its wait is not over"
    while node.clock.now < hook_start(node) + GIVE_UP_MS:
        node.clock.pass_s(RETRY_MAX_S + 10)
        await working.step()
    assert tried + 5 < len(hook.requests) < tried + 40, "each wait is longer"
    await node.login()
    page = await node.channels.notices(
        node.admin("NoticeService/ListNotices"), channel="SIEM", dead_only=True
    )
    (dead,) = page.value.items
    assert (dead.action, dead.cause) == ("CreateUser", "answered 500")
    assert dead.notice_id == hook.ids[-1]
    failed = len(hook.requests)
    hook.answer = lambda _: OK
    await working.step()
    assert len(hook.requests) == failed
    await node.channels.send_again(
        node.admin("NoticeService/SendNoticesAgain"), channel="SIEM"
    )
    await working.step()
    assert hook.ids[-1] == hook.ids[failed - 1]
    assert waiting(node) == []


def last(hook: Receiver) -> str:
    return str(json.loads(hook.requests[-1][1])["subject"])


def hook_start(node: OneNode) -> int:
    (at_ms,) = node.primary_db.execute("SELECT min(since_ms) FROM notices").fetchone()
    return at_ms or 0


async def test_a_gone_receiver_disables_its_channel(
    node: OneNode, hook: Receiver
) -> None:
    """(N2) HTTP 410; what it did not take is kept."""
    await create(node, hook.url)
    await add_users(node, "alice")
    hook.answer = lambda _: STATUS.format(410).encode()
    await (await lane(node)).step()
    (found,) = (
        await node.channels.list(node.admin("NoticeService/ListChannels"))
    ).value
    assert not found.channel.enabled
    assert found.dead == 1
    await add_users(node, "bob")
    await node.delivery.step()
    assert node.delivery._lanes == {}
    assert len(hook.requests) == 1
    (reason,) = node.primary_db.execute(
        "SELECT detail FROM audit_events WHERE action = 'FailNotices'"
    ).fetchone()
    assert "410" in reason


@pytest.mark.parametrize("manner", ["silent", "drips", "busy", "gateway", "endless"])
async def test_a_receiver_that_is_down_is_tried_seldom(
    node: OneNode, hook: Receiver, manner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N2) One request for each wait, and an answer has a total time."""
    monkeypatch.setattr(webhook, "TOTAL_S", 3.0)  # Eight handshakes fit in it.
    await create(node, hook.url)
    await add_users(node, *(f"user{number}" for number in range(20)))
    answers = {
        "silent": None,
        "drips": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        "busy": STATUS.format(503).encode(),
        "gateway": STATUS.format(502).encode(),
        "endless": b"HTTP/1.1 200 OK\r\nX: ",
    }
    hook.drips = manner in ("drips", "endless")
    hook.answer = lambda _: answers[manner]
    working = await lane(node)
    await working.step()
    assert 1 <= len(hook.requests) <= 8
    before = len(hook.requests)
    await working.step()
    assert len(hook.requests) == before, "it waits"
    node.clock.pass_s(2)  # Requests at the same time are one failure.
    await working.step()
    assert len(hook.requests) == before + 1, "one notice tries for all"
    hook.drips, hook.answer = False, lambda _: OK
    while waiting(node):
        node.clock.pass_s(600)  # Each time: a busy machine may pause the channel again.
        await working.step()
    assert len(set(hook.ids)) == 20


async def test_a_bug_pauses_one_channel_and_stops_no_primary(
    node: OneNode, hook: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """(N2) Otherwise one notice would stop one primary after the other."""

    class Broken(WebhookSender):
        async def send(self, notice: StoredNotice, now_ms: int) -> Attempt:
            raise RuntimeError(notice.notice_id, now_ms)

    await create(node, hook.url)
    await add_users(node, "alice")
    working = await lane(node)
    whole = working.sender
    working.sender = Broken(
        address=whole.address,
        signer=whole.signer,
        cluster_id=whole.cluster_id,
        pool=whole.pool,
    )
    assert not await working.work()
    assert "channel_failed" in caplog.text
    working.sender = whole
    assert not await working.work()
    assert hook.requests == []
    node.clock.pass_s(600)
    await working.work()
    assert len(hook.requests) == 1


async def test_a_redirect_is_not_followed(node: OneNode, hook: Receiver) -> None:
    """(N4) It could lead anywhere."""
    await create(node, hook.url)
    await add_users(node, "alice")
    hook.answer = lambda _: (
        f"HTTP/1.1 307 X\r\nLocation: {hook.url}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    await (await lane(node)).step()
    assert len(hook.requests) == 1
    assert len(waiting(node)) == 1


async def test_a_huge_answer_is_cut_and_its_status_counts(
    node: OneNode, hook: Receiver
) -> None:
    """(N4) A receiver cannot fill the primary's memory."""
    await create(node, hook.url)
    await add_users(node, "alice")
    size = 64 * 1024 * 1024
    hook.answer = lambda _: (
        f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + b"." * 300_000
    )
    await (await lane(node)).step()
    assert waiting(node) == []


async def test_the_certificate_must_be_for_the_host(
    node: OneNode, hook: Receiver, tmp_path: Path
) -> None:
    """(N4) And of an authority that the channel or the system trusts."""
    del hook  # It ends the lane.
    async with receiver(tmp_path, host="elsewhere.example") as other:
        await create(node, other.url)
        await add_users(node, "alice")
        working = await lane(node)
        await working.step()
        assert other.requests == []
        assert "certificate" in working.last_cause.lower()
        await node.delivery._end("siem")
    async with receiver(tmp_path) as unknown:
        await node.channels.update(
            node.admin(UPDATE), name="siem", address=unknown.url, authority=""
        )
        await (await lane(node)).step()
        assert unknown.requests == []


def local_names(asked: list[str]) -> Callable[..., Awaitable[tuple[IpAddress, ...]]]:
    """Return a resolver to which every name is this machine; it records them."""

    async def resolve(
        host: str, port: int, *, allow_private: bool
    ) -> tuple[IpAddress, ...]:
        del port
        asked.append(host)
        return checked(host, ["127.0.0.1"], allow_private=allow_private)

    return resolve


async def test_a_name_is_resolved_once_and_checked(
    node: OneNode, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N4) A name of a private address leads nowhere, whatever it was a moment ago."""
    port = parse_url(hook.url).port
    asked: list[str] = []
    monkeypatch.setattr(addresses, "resolve", local_names(asked))
    await create(node, f"https://hook.example:{port}/", allow_private=False)
    await add_users(node, "alice")
    working = await lane(node)
    await working.step()
    assert hook.connections == 0
    assert "private" in working.last_cause
    assert asked == ["hook.example"]


@pytest.mark.parametrize(
    "change",
    [
        {"address": "http://siem.example/"},
        {"address": "https://user:word@siem.example/"},
        {"address": "https:///in"},
        {"address": "https://siem.example/#part"},
        {"address": "https://siem.example:0/"},
        {"address": "https://siem.example:x/"},
        {"address": "https://siem.example/a b"},
        {"address": "https://10.0.0.1/", "allow_private": False},
        {"address": "https://[::1]/", "allow_private": False},
        {"address": "https://169.254.169.254/"},
        {"classes": []},
        {"authority": "no certificate"},
        {"authority": "\u00e9"},
        {"secret": "whsec_"},
        {"secret": "abc"},
        {"secret": "whsec_" + "A" * 127},
        {"name": ""},
    ],
)
async def test_unusable_settings_are_refused(
    node: OneNode, change: dict[str, object]
) -> None:
    """(N4) Before anything is proposed."""
    with pytest.raises(InvalidFieldError):
        await create(node, **{"url": "https://siem.example/", **renamed(change)})


def renamed(change: dict[str, object]) -> dict[str, object]:
    return {("url" if key == "address" else key): each for key, each in change.items()}


async def test_a_full_outbox_drops_of_the_busiest_sender_and_refuses_no_one(
    node: OneNode, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N2) And says so once for many; another channel keeps all of its own."""
    monkeypatch.setattr(outbox, "NOTICES_MAX", 16)
    every = [EventClass.TOKENS, EventClass.AUTHENTICATION]
    await create(node, hook.url, classes=every)
    await create(node, hook.url, name="other", classes=[EventClass.TOKENS])
    await add_users(node, *(f"user{number}" for number in range(8)))
    for _ in range(24):
        await node.authenticate("123456", username="user1")
        node.clock.pass_s(10)
    kinds = node.primary_db.execute(
        "SELECT channel, class, count(*) FROM notices GROUP BY channel, class"
    ).fetchall()
    found = {(channel, event_class): count for channel, event_class, count in kinds}
    assert found["other", "tokens"] == 8
    assert found["siem", "tokens"] == 8, "tokens matter more than sign-ins"
    assert found["siem", "authentication"] == 8
    dropped = node.primary_db.execute(
        "SELECT target, detail FROM audit_events WHERE action = 'NOTICES_DROPPED'"
    ).fetchall()
    assert 2 <= len(dropped) <= 4, "one a minute"
    assert all(target == "channel siem" for target, _ in dropped)
    assert dropped[0][1] == "1 notice, because too many wait"
    for channel, kept in node.primary_db.execute("SELECT channel, kept FROM channels"):
        assert kept == sum(
            count for (each, _), count in found.items() if each == channel
        )


async def test_dead_letters_of_a_sender_are_dropped_first(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N2) Also one of a higher class: it was tried for three days."""
    monkeypatch.setattr(outbox, "NOTICES_MAX", 3)
    every = [EventClass.TOKENS, EventClass.EMERGENCY]
    await create(node, "https://siem.example/", classes=every)
    await add_users(node, "user1")
    number, version = node.primary_db.execute(
        "SELECT number, version FROM notices JOIN channels USING (channel)"
    ).fetchone()
    await node.delivery._propose(
        FailNotices(
            channel=NameKey("siem"),
            numbers=(number,),
            cause="answered 500",
            disable=False,
            version=version,
        )
    )
    assert waiting(node) == [("CreateUser", True, "answered 500")]
    for number in range(3):
        assert [each[0] for each in waiting(node)][:1] == ["CreateUser"], number
        await add_users(node, f"later{number}")
        node.clock.pass_s(70)
    assert [each[1] for each in waiting(node)] == [False] * 3


async def test_each_receiver_gets_only_what_it_wants(
    node: OneNode, hook: Receiver, tmp_path: Path
) -> None:
    """(N2) Two channels, each with classes of its own."""
    (tmp_path / "other").mkdir()
    async with receiver(tmp_path / "other") as other:
        await create(node, hook.url)
        await create(node, other.url, name="other", classes=[EventClass.AUTHENTICATION])
        await add_users(node, "user1", "user2")
        await node.authenticate("123456", username="user1")
        await lane(node)
        for each in node.delivery._lanes.values():
            assert isinstance(each, Lane)
            await each.step()
        for got, expected in (
            (hook, ["sparecode.tokens.CreateUser"] * 2),
            (other, ["sparecode.authentication.Authenticate"]),
        ):
            assert [json.loads(body)["type"] for _, body in got.requests] == expected
        await node.delivery._end(NameKey("other"))


async def test_many_deliveries_are_acknowledged_by_one_entry(
    node: OneNode, hook: Receiver
) -> None:
    """(N2) The log would otherwise grow with each notice, as with each call."""
    await create(node, hook.url)
    await add_users(node, *(f"user{number}" for number in range(20)))
    working = await lane(node)
    before = len(node.replicator.entries)
    await working.step()
    assert len(hook.requests) == 20
    assert len(node.replicator.entries) == before + 1
    assert waiting(node) == []


async def test_the_last_drops_of_a_minute_are_told_after_it(
    node: OneNode, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N2) Though nothing more is dropped; a removal counts those that are untold."""
    monkeypatch.setattr(outbox, "NOTICES_MAX", 3)
    await create(node, hook.url)
    await add_users(node, *(f"user{number}" for number in range(10)))
    assert told_drops(node) == [1]
    node.clock.pass_s(59)
    await node.authenticate("123456", username="user1")
    assert told_drops(node) == [1]
    node.clock.pass_s(2)
    await node.authenticate("123456", username="user1")
    assert told_drops(node) == [1, 6]
    node.clock.pass_s(120)
    await node.authenticate("123456", username="user1")
    assert told_drops(node) == [1, 6]
    await add_users(node, "late", "later", "latest")
    assert told_drops(node) == [1, 6, 1]
    await node.channels.remove(node.admin("NoticeService/RemoveChannel"), name="siem")
    (detail,) = node.primary_db.execute(
        "SELECT detail FROM audit_events WHERE action = 'RemoveChannel'"
    ).fetchone()
    assert detail.endswith("5 notices discarded")


def told_drops(node: OneNode) -> list[int]:
    rows = node.primary_db.execute(
        "SELECT detail FROM audit_events WHERE action = 'NOTICES_DROPPED' "
        "ORDER BY sequence"
    )
    return [int(detail.split()[0]) for (detail,) in rows]


async def test_a_stolen_session_changes_no_channel(
    node: OneNode, hook: Receiver
) -> None:
    """(P7, N5) It could lead what happens elsewhere, or hide it."""
    await create(node, hook.url)
    node.clock.pass_s(301)
    for change in (
        lambda: create(node, hook.url, name="mine"),
        lambda: node.channels.update(node.admin(UPDATE), name="siem", enabled=False),
        lambda: node.channels.remove(
            node.admin("NoticeService/RemoveChannel"), name="siem"
        ),
    ):
        with pytest.raises(Refused) as refused:
            await change()
        assert refused.value.rejected.reason is Reason.REAUTHENTICATION_NEEDED


async def test_a_test_shows_the_exchange_and_leaves_no_notice(
    node: OneNode, hook: Receiver
) -> None:
    """(N2, N3) From a replica, also of a disabled channel; the secret is not shown."""
    await create(node, hook.url)
    await node.channels.update(node.admin(UPDATE), name="siem", enabled=False)
    before = waiting(node)
    call = node.admin("NoticeService/TestChannel")
    taken = await node.channels.test(call, name="SIEM")
    assert (taken.delivered, taken.node_id) == (True, NODE)
    assert taken.sent.startswith(f"POST {hook.url}\n")
    assert hook.requests[0][1].decode() in taken.sent
    assert json.loads(hook.requests[0][1])["data"]["action"] == "TestChannel"
    assert "webhook-signature: v1," in taken.sent
    assert SECRET not in taken.sent
    assert taken.received == "HTTP 204\n\n"
    hook.answer = lambda _: (
        b"HTTP/1.1 500 X\r\nContent-Length: 70000\r\n\r\n\x1b[2Jno" + b"." * 70_000
    )
    refused = await node.channels.test(call, name="siem")
    assert (refused.delivered, refused.cause) == (False, "answered 500")
    assert refused.received.startswith("HTTP 500\n\n?[2Jno")
    assert len(refused.received) <= webhook.SHOWN_MAX
    assert waiting(node) == before
    with pytest.raises(Refused) as unknown:
        await node.channels.test(call, name="other")
    assert unknown.value.rejected.reason is Reason.CHANNEL_UNKNOWN


async def test_attempts_are_counted_by_channel_and_outcome(
    node: OneNode, hook: Receiver, tmp_path: Path
) -> None:
    """(N2) The metrics show what waits, on every node, and what this node has tried."""
    await create(node, hook.url)
    await add_users(node, "alice", "bob")
    hook.answer = lambda _: STATUS.format(500).encode() if "alice" in last(hook) else OK
    await (await lane(node)).step()
    assert node.delivery._counts.attempts() == {
        ("siem", "delivered"): 1,
        ("siem", "failed"): 1,
    }
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        node.primary_db.backup(copy)
        (at_ms,) = copy.execute("SELECT min(at_ms) FROM notices").fetchone()
    counts = EventCounts(tmp_path / "copy.db")
    counts.take()
    (queue,) = counts.queues
    assert queue == Queue(channel="siem", waiting=1, dead=0, oldest_ms=at_ms)

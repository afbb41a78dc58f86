# SPDX-License-Identifier: Apache-2.0
"""A user says of a notice that it was not them, by the link in its mail (N9)."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.alarms import LINK_MS
from sparecode_node.domain.ids import KeyId, NodeId, RequestId, UserId
from sparecode_node.services.context import Anonymous, CallContext
from sparecode_node.services.errors import RateError
from sparecode_node.services.load.rates import RateLimits
from sparecode_node.services.notices.alarms import AlarmLinks
from sparecode_node.services.people.administrators import Link
from sparecode_node.services.secrets.alarm_seals import AlarmLink, AlarmSeals
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.alarms import RaiseAlarm
from tests.services.mail_server import MailServer, mail_server
from tests.services.one_node import CONSOLES, PIN, SERIAL, OneNode, one_node
from tests.services.test_mail import ALICE, add_alice, create, ending
from tests.services.test_notices import lane

pytestmark = pytest.mark.asyncio

BOSS = "boss@example.com"


@pytest_asyncio.fixture
async def server(node: OneNode, tmp_path: Path) -> AsyncIterator[MailServer]:
    """Return the mail server of a cluster with Alice and her manager."""
    async with mail_server(tmp_path) as started, ending(node):
        await prepare(node, started)
        yield started


async def prepare(node: OneNode, started: MailServer) -> None:
    await create(node, started.url)
    await add_alice(node)
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", manager_email=BOSS
    )
    await deliver(node, started)


async def deliver(node: OneNode, server: MailServer) -> None:
    """Forget earlier mails, and send what waits."""
    server.mails.clear()
    server.recipients.clear()
    await (await lane(node)).step()


async def end_codes(node: OneNode, *, by_alarm: bool = True) -> None:
    policy = (await node.policies.get(node.admin("PolicyService/GetPolicy"))).value
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=policy.version,
        values={"alarm_ends_codes": by_alarm},
    )


def links_to(server: MailServer, recipient: str, kind: str = "plain") -> list[str]:
    """Return the links of the mail to a recipient."""
    (mail,) = [each for each in server.mails if each["To"] == recipient]
    body = mail.get_body((kind,))
    assert body is not None
    found = re.findall(r"https://[^\s\"<]+", body.get_content())
    return [each.replace("&amp;", "&") for each in found]


def token_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["token"][0]


def stranger(peer: str = "192.0.2.9") -> CallContext:
    return CallContext(
        caller=Anonymous(), request_id="", method="alarm", deadline_s=5, peer=peer
    )


async def raised(node: OneNode, token: str) -> bool:
    return await node.services.alarms.raise_alarm(stranger(), token)


def events(node: OneNode, *actions: str) -> list[tuple[str, str, str, str]]:
    rows = node.primary_db.execute(
        "SELECT action, target, outcome, detail FROM audit_events ORDER BY sequence"
    )
    return [row for row in rows if row[0] in actions]


async def issued_token(node: OneNode, server: MailServer) -> tuple[str, list[str]]:
    """Issue codes; return the token in the mail about it, and the codes."""
    codes = [each.code for each in (await node.issue()).codes]
    await deliver(node, server)
    return token_of(links_to(server, ALICE)[0]), codes


async def test_a_user_tells_the_help_desk(node: OneNode, server: MailServer) -> None:
    """(N9) The administrators of the help desk hear, once, and the codes stay."""
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="dora",
        display_name="",
        email="dora@example.com",
    )
    await node.administrators.create(
        node.admin("AdministratorService/CreateAdministrator"),
        name="dora",
        role=Role.HELP_DESK,
        password="correct horse battery staple",
        link=Link("dora"),
    )
    await deliver(node, server)
    token, codes = await issued_token(node, server)
    assert await raised(node, token)
    assert await raised(node, token)
    (event,) = events(node, "RaiseAlarm")
    assert event[:3] == ("RaiseAlarm", "alice", "applied")
    assert event[3].startswith("codes_issued, notice ")
    await deliver(node, server)
    assert server.recipients == ["dora@example.com"]
    body = server.mails[0].get_body(("plain",))
    assert body is not None
    assert "User: alice" in body.get_content()
    assert "Call 4711." in body.get_content()
    assert links_to(server, "dora@example.com") == []
    (alarm,) = (
        await node.services.alarms.recent(node.admin("UserService/GetUser"), "Alice")
    ).value
    assert (alarm.username, alarm.kind) == ("alice", "codes_issued")
    assert await node.accepts(PIN + codes[0])


async def test_one_user_hides_no_alarm_of_another(
    node: OneNode, server: MailServer
) -> None:
    """(N9) For all users, each has one line: that of the newest alarm."""
    tokens = [(await issued_token(node, server))[0] for _ in range(2)]
    for token in tokens:
        assert await raised(node, token)
    user = node.admin("UserService/GetUser")
    assert len((await node.services.alarms.recent(user, "alice")).value) == 2
    (newest,) = (await node.services.alarms.recent(user)).value
    assert newest == (await node.services.alarms.recent(user, "alice")).value[0]


async def test_only_mails_to_users_have_a_link(
    node: OneNode, server: MailServer
) -> None:
    """(N9) Not those to managers; the links go to consoles that are known."""
    await node.issue()
    await deliver(node, server)
    assert sorted(server.recipients) == sorted([ALICE, BOSS])
    links = links_to(server, ALICE)
    assert [each.partition("?")[0] for each in links] == [
        f"{console}/not-me" for console in CONSOLES[:2]
    ]
    assert links_to(server, ALICE, "html") == links
    assert links_to(server, BOSS) == []
    # Nor are there links where no console is known.
    seals = AlarmSeals(node.key_holder.ring)
    assert AlarmLinks(seals, {}, NodeId("n1"))._consoles == ()


async def test_a_deleted_user_gets_no_link(node: OneNode, server: MailServer) -> None:
    """(N9) And the earlier links raise nothing any more."""
    token, _ = await issued_token(node, server)
    for method, call in (
        ("TokenService/UnassignToken", node.tokens.unassign),
        ("TokenService/DeleteToken", node.tokens.delete),
    ):
        await call(node.admin(method), serial=SERIAL)
    await deliver(node, server)
    await node.users.delete(node.admin("UserService/DeleteUser"), username="alice")
    await deliver(node, server)
    assert links_to(server, ALICE) == []
    entries = len(node.replicator.entries)
    assert not await raised(node, token)
    assert len(node.replicator.entries) == entries


async def test_a_link_that_is_not_ours_writes_nothing(
    node: OneNode, server: MailServer
) -> None:
    """(N9) Forged, changed, of another cluster or key, and too old."""
    token, _ = await issued_token(node, server)
    link = AlarmSeals(node.key_holder.ring).unseal_link(token)
    assert link is not None
    ring = node.key_holder.ring
    other = AlarmSeals(
        KeyRing(cluster_id=ring.cluster_id, active=KeyId(1), keys={KeyId(1): b"k" * 32})
    )
    elsewhere = AlarmSeals(ring.for_cluster("another"))
    entries = len(node.replicator.entries)
    changed = token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:]
    for each in (
        "",
        "x",
        "é" * 40,
        "A" * 2000,
        changed,
        token[:-1],
        other.seal_link(link),
        elsewhere.seal_link(link),
    ):
        assert not await raised(node, each)
    node.clock.pass_s(LINK_MS / 1000)
    assert not await raised(node, token)
    assert len(node.replicator.entries) == entries
    assert events(node, "RaiseAlarm") == []
    node.clock.pass_s(-1)
    assert await raised(node, token)


async def test_a_link_is_about_one_user_and_notice(
    node: OneNode, server: MailServer
) -> None:
    """(N9) A token for someone who is not there writes nothing."""
    await issued_token(node, server)
    entries = len(node.replicator.entries)
    for_nobody = AlarmSeals(node.key_holder.ring).seal_link(
        AlarmLink(
            user_id=UserId("nobody"),
            notice_id="c-1-1",
            kind="pin_set",
            told_at_ms=node.clock.now_ms(),
        )
    )
    assert not await raised(node, for_nobody)
    assert len(node.replicator.entries) == entries


async def test_a_repeat_writes_nothing(node: OneNode, server: MailServer) -> None:
    """(N9) Neither here nor where another node was told a moment ago."""
    token, _ = await issued_token(node, server)
    link = AlarmSeals(node.key_holder.ring).unseal_link(token)
    assert link is not None
    node.replicator.before_apply = UnstampedCall.of_node(
        NodeId("n2"),
        RaiseAlarm(
            user_id=link.user_id,
            notice_id=link.notice_id,
            kind=link.kind,
            told_at_ms=link.told_at_ms,
        ),
        RequestId("elsewhere"),
    )
    assert await raised(node, token)
    assert len(events(node, "RaiseAlarm")) == 1
    entries = len(node.replicator.entries)
    assert await raised(node, token)
    assert len(node.replicator.entries) == entries


async def test_the_policy_decides_whether_codes_end(
    node: OneNode, server: MailServer
) -> None:
    """(N9) Then they are void and the token stays lost; nothing is enabled again."""
    await end_codes(node)
    token, codes = await issued_token(node, server)
    assert await node.accepts(PIN + codes[0])
    lost = node.primary_db.execute("SELECT lost, enabled FROM tokens").fetchone()
    assert await raised(node, token)
    assert not await node.accepts(PIN + codes[1])
    after = node.primary_db.execute("SELECT lost, enabled FROM tokens").fetchone()
    assert after == lost
    (event,) = events(node, "CODES_VOIDED")
    assert event[3].startswith("the user raised an alarm")
    # The same link later ends no codes that were issued since.
    codes = [each.code for each in (await node.issue()).codes]
    assert await raised(node, token)
    assert await node.accepts(PIN + codes[0])


async def guess(node: OneNode) -> None:
    for _ in range(1000):
        assert not await raised(node, "A" * 100)


async def test_guesses_have_the_rate_of_strangers(tmp_path: Path) -> None:
    """(N9, L7)."""
    async with one_node(tmp_path, RateLimits(session=2)) as node:
        with pytest.raises(RateError):
            await guess(node)
        # Another address has a rate of its own.
        assert not await node.services.alarms.raise_alarm(
            stranger("198.51.100.7"), "A" * 100
        )

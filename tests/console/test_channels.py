# SPDX-License-Identifier: Apache-2.0
"""Channels in the Security Console: created, changed, tested and removed (N5)."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.notices import ChannelKind, EventClass
from sparecode_node.services.secrets.channel_seals import ChannelSeals
from tests.console.desk import GATE, SIEM, Desk, desk
from tests.console.paper import Form, Page, Paper
from tests.console.test_bulk_issue import second_super
from tests.console.test_pages import with_role
from tests.services.mail_server import LOGIN, mail_server
from tests.services.mail_server import PASSWORD as MAIL_PASSWORD
from tests.services.one_node import PASSWORD, SERIAL
from tests.services.receiver import AUTHORITY, receiver

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture(name="desk")
async def running_desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as running:
        yield running


async def new_channel(browser: Paper, kind: str) -> Page:
    await browser.open("/new/channel")
    return await browser.send("Continue", tick={"kind": kind})


async def channels(desk: Desk) -> dict[str, object]:
    await desk.node.login()
    read = await desk.node.channels.list(desk.node.admin("NoticeService/ListChannels"))
    return {each.channel.name: each.channel for each in read.value}


def secret_of(desk: Desk, channel: object) -> str:
    return ChannelSeals(desk.node.ring).unseal_channel_secret(
        channel.channel, channel.sealed_secret, channel.key_id
    )


async def test_a_webhook_is_created_and_its_secret_shown_once(desk: Desk) -> None:
    """(N3, N5) The form draws it; what was typed stays after a refusal."""
    browser = await desk.administrator()
    page = await new_channel(browser, "webhook")
    drawn = page.form("/new/channel", "Create channel").value("webhook_secret")
    assert drawn.startswith("whsec_")
    page = await browser.send("Create channel", name="hook", address="http://a.example")
    assert page.status == 422
    form = page.form("/new/channel", "Create channel")
    assert form.value("webhook_secret") == drawn
    page = await browser.send(
        "Create channel",
        address="https://a.example/in",
        tick={"tells_tokens": "on"},
        untick=("tells_administration",),
    )
    assert page.path == "/channels"
    assert "The channel is created" in page.text
    made = (await channels(desk))["hook"]
    assert made.kind is ChannelKind.WEBHOOK
    assert made.classes == (EventClass.EMERGENCY, EventClass.TOKENS)
    assert secret_of(desk, made) == drawn
    for path in ("/channels", "/channels/hook", "/audit", "/approvals"):
        assert drawn not in (await browser.client.get(path)).text
    again = (await new_channel(browser, "webhook")).form(
        "/new/channel", "Create channel"
    )
    assert again.value("webhook_secret") != drawn


async def test_the_kind_of_a_channel_is_chosen_first(desk: Desk) -> None:
    """Its page has the fields of that kind only; it works without a script."""
    browser = await desk.administrator()
    fields = {
        "webhook": {"address", "authority", "webhook_secret"},
        "syslog": {"address", "authority"},
        "file": set(),
        "mail": {
            *("address", "authority", "sender", "contact", "login", "mail_password")
        },
    }
    for kind, shown in fields.items():
        page = await browser.open("/new/channel")
        assert "whsec_" not in page.response.text
        page = await browser.send("Continue", tick={"kind": kind})
        form = page.form("/new/channel", "Create channel")
        named = {name for name, _ in form.fields if not name.startswith("tells_")}
        assert named - {"form_token", "request_id", "boxes"} == {*shown, "name", "kind"}
        assert form.value("kind") == kind
        assert bool(form.values("tells_emergency")) == (kind == "webhook")


async def test_another_kind_is_chosen_without_losing_input(desk: Desk) -> None:
    """What another kind does not have is kept, and not sent with the channel."""
    browser = await desk.administrator()
    page = await new_channel(browser, "mail")

    async def switch(kind: str, **typed: str) -> Form:
        await browser.send("Choose another kind", **typed)
        page = await browser.send("Continue", tick={"kind": kind})
        return page.form("/new/channel", "Create channel")

    address = "smtps://mail.example.com"
    form = await switch("webhook", name="hook", address=address, contact="Call 4711.")
    assert (form.value("name"), form.value("address")) == ("hook", address)
    assert form.values("tells_emergency") == ["on"], "suggested, as never shown before"
    drawn = form.value("webhook_secret")
    page = await browser.send(
        "Choose another kind",
        untick=("tells_emergency",),
        tick={"tells_tokens": "on", "allow_private": "on"},
    )
    assert ("kind", "mail") in page.form("/new/channel", "Continue").choices
    form = (await browser.send("Continue", tick={"kind": "mail"})).form(
        "/new/channel", "Create channel"
    )
    assert form.value("contact") == "Call 4711."
    assert form.value("allow_private") == "on"
    form = await switch("webhook")
    assert form.value("webhook_secret") == drawn
    assert form.values("tells_emergency") == []
    assert form.values("tells_tokens") == ["on"]
    form = await switch("file", name="events")
    page = await browser.send("Create channel")
    assert "The channel is created" in page.text, page.text
    made = (await channels(desk))["events"]
    assert (made.kind, made.address, made.allow_private) == (
        ChannelKind.FILE,
        "",
        False,
    )


async def test_no_secret_is_drawn_before_the_password_is_confirmed(desk: Desk) -> None:
    browser = await desk.administrator()
    await new_channel(browser, "mail")
    await browser.send("Choose another kind", name="hook")
    desk.node.clock.pass_s(301)
    page = await browser.send("Continue", tick={"kind": "webhook"})
    assert page.status == 403
    assert "whsec_" not in page.response.text
    page = await browser.send("Confirm", confirm_password=PASSWORD)
    form = page.form("/new/channel", "Create channel")
    assert form.value("name") == "hook"
    assert form.value("webhook_secret").startswith("whsec_")


async def test_streams_take_neither_events_nor_a_secret(desk: Desk) -> None:
    """(N2) What the form shows of webhooks does not matter for the other kinds."""
    browser = await desk.administrator()
    for name, kind, address in (
        ("logs", "syslog", "tcp+tls://siem.example:6514"),
        ("events", "file", ""),
    ):
        page = await new_channel(browser, kind)
        typed = {"address": address} if address else {}
        page = await browser.send("Create channel", name=name, **typed)
        assert page.path == "/channels", page.text
        assert (await channels(desk))[name].kind == kind
        await browser.open(f"/channels/{name}")
        assert "whsec_" not in (await browser.client.get(f"/channels/{name}")).text
        page = await browser.send("Save", untick=("enabled",))
        assert page.path == "/channels", page.text
        assert not (await channels(desk))[name].enabled


async def test_settings_of_a_channel_are_changed(desk: Desk) -> None:
    """(N5) It keeps its secret unless another one is typed."""
    browser = await desk.administrator()
    before = (await channels(desk))[SIEM]
    await browser.open(f"/channels/{SIEM}")
    page = await browser.send(
        "Save", untick=("tells_tokens",), address="https://b.example/"
    )
    assert page.status == 422
    assert "hoose at least one class" in page.text
    page = await browser.send("Save", tick={"tells_upkeep": "on"})
    assert "The channel is changed" in page.text
    now = (await channels(desk))[SIEM]
    assert (now.address, now.classes) == ("https://b.example/", (EventClass.UPKEEP,))
    assert secret_of(desk, now) == secret_of(desk, before)
    await browser.open(f"/channels/{SIEM}")
    another = desk.node.channels.new_secret()
    await browser.send("Save", webhook_secret=another)
    assert secret_of(desk, (await channels(desk))[SIEM]) == another
    assert (await browser.open("/channels/unknown")).status == 404


async def test_a_channel_is_removed_after_a_confirmation(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open(f"/channels/{SIEM}")
    page = await browser.send("Remove channel")
    assert "onfirm the removal first" in page.text
    assert SIEM in await channels(desk)
    page = await browser.send("Remove channel", tick={"sure": "on"})
    assert "The channel is removed" in page.text
    assert SIEM not in await channels(desk)


async def test_a_change_needs_a_recent_password_and_keeps_the_secret(
    desk: Desk,
) -> None:
    """(P7, N5) The receiver has the secret already, so the form goes on with it."""
    browser = await desk.administrator()
    await new_channel(browser, "webhook")
    drawn = browser.page.form("/new/channel", "Create channel").value("webhook_secret")
    desk.node.clock.pass_s(301)
    page = await browser.send(
        "Create channel", name="hook", address="https://a.example/in"
    )
    assert page.status == 403
    page = await browser.send("Confirm", confirm_password=PASSWORD)
    assert "The channel is created" in page.text, page.text
    assert secret_of(desk, (await channels(desk))["hook"]) == drawn
    desk.node.clock.pass_s(301)
    page = await browser.open("/new/channel")
    assert page.status == 403
    asked = (await browser.client.get("/new/channel")).text
    assert "whsec_" not in asked, "it asks before it draws a secret"


async def test_a_test_shows_the_exchange(desk: Desk, tmp_path: Path) -> None:
    """(N2) With a real receiver, from the page where the channel was created."""
    browser = await desk.administrator()
    async with receiver(tmp_path) as hook:
        await new_channel(browser, "webhook")
        page = await browser.send(
            "Create channel",
            name="hook",
            address=hook.url,
            authority=AUTHORITY.pem.decode().replace("\n", "\r\n"),
            tick={"allow_private": "on"},
        )
        assert "The channel is created" in page.text
        page = await browser.send("Test", channel="hook")
        assert "Delivered" in page.text
        assert "webhook-signature" in page.text
        assert "HTTP 204" in page.text
        assert len(hook.requests) == 1


async def test_what_waits_and_dead_letters_are_shown_and_sent_again(desk: Desk) -> None:
    """(N2) As after three days of failures."""
    browser = await desk.administrator()
    await desk.node.create_user("waits")
    db = desk.node.local_db
    (waiting,) = db.execute(
        "SELECT count(*) FROM notices WHERE channel = ?", (SIEM.casefold(),)
    ).fetchone()
    assert waiting > 1
    for replica in (db, desk.node.primary_db):
        replica.execute(
            "UPDATE notices SET dead = 1, cause = 'answered 500' "
            "WHERE number = (SELECT max(number) FROM notices WHERE channel = ?)",
            (SIEM.casefold(),),
        )
        replica.commit()
    page = await browser.open("/channels")
    assert f"{SIEM} " in page.text
    assert "answered 500" in page.text
    page = await browser.send("Send again", channel=SIEM)
    assert "The dead letters are sent again" in page.text
    assert "answered 500" not in page.text
    assert not db.execute("SELECT 1 FROM notices WHERE dead = 1").fetchall()


MAIL = {
    "name": "mail",
    "sender": "noreply@example.com",
    "contact": "Call 4711.",
    "login": LOGIN,
    "mail_password": MAIL_PASSWORD,
}


async def test_a_channel_for_mail_is_created_tested_and_changed(
    desk: Desk, tmp_path: Path
) -> None:
    """(N3, N6) With a real mail server. No page shows the password again."""
    browser = await desk.administrator()
    async with mail_server(tmp_path) as server:
        settings = {
            **MAIL,
            "address": server.url,
            "authority": AUTHORITY.pem.decode(),
        }
        await new_channel(browser, "mail")
        page = await browser.send(
            "Create channel",
            tick={"allow_private": "on"},
            **{**settings, "mail_password": ""},
        )
        assert page.status == 422
        assert "ust be the password of the login" in page.text
        page = await browser.send("Create channel", mail_password="other")
        assert "The channel is created" in page.text, page.text
        page = await browser.send("Test", channel="mail")
        assert "answered 535 to AUTH" in page.text
        await browser.open("/channels/mail")
        page = await browser.send("Save", mail_password=MAIL_PASSWORD)
        assert "The channel is changed" in page.text, page.text
        page = await browser.send("Test", channel="mail")
        assert "Delivered" in page.text
        assert server.recipients == ["noreply@example.com"]
        await browser.open("/channels/mail")
        page = await browser.send("Save", contact="Call 4712.")
        assert "The channel is changed" in page.text, page.text
        changed = (await channels(desk))["mail"]
        assert (changed.contact, changed.login) == ("Call 4712.", LOGIN)
        assert secret_of(desk, changed) == MAIL_PASSWORD
        await browser.open("/channels/mail")
        page = await browser.send("Save", login="another")
        assert page.status == 422, "the password of another name is needed"
    for path in ("/channels", "/channels/mail", "/audit", "/approvals"):
        assert MAIL_PASSWORD not in (await browser.client.get(path)).text


async def test_a_channel_waits_for_the_approval_of_another_administrator(
    desk: Desk,
) -> None:
    """(N5, P3) Requested by one, read and approved by another; no page has the secret."""
    other = await second_super(desk)
    browser = await desk.administrator()
    await new_channel(browser, "mail")
    page = await browser.send(
        "Create channel", address="smtps://mail.example.com", **MAIL
    )
    assert page.path == "/channels", page.text
    assert "must approve" in page.text
    assert "mail" not in await channels(desk)
    page = await other.open("/approvals")
    for words in (
        "Save channel mail Waiting",
        "Mail by the server smtps://mail.example.com",
        "sender noreply@example.com",
        "signs in as sparecode",
    ):
        assert words in page.text, page.text
    assert MAIL_PASSWORD not in (await other.client.get("/approvals")).text
    page = await other.send("Approve")
    assert "pproved" in page.text
    made = (await channels(desk))["mail"]
    assert made.kind is ChannelKind.MAIL
    assert secret_of(desk, made) == MAIL_PASSWORD


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("/new/administrator", "/administrators"),
        ("/new/agent", "/agents"),
        ("/new/channel", "/channels"),
        ("/new/radius-client", "/agents"),
        ("/new/user", "/users"),
        ("/import/users", "/users"),
        ("/import/tokens", "/tokens"),
        (f"/radius-clients/{GATE}", "/agents"),
        (f"/channels/{SIEM}", "/channels"),
        ("/", "/"),
        ("/account", ""),
    ],
)
async def test_the_navigation_marks_the_entry_of_each_page(
    desk: Desk, path: str, entry: str
) -> None:
    browser = await desk.administrator()
    text = (await browser.client.get(path)).text
    marked = re.findall(r'<a href="([^"]+)" aria-current="page">', text)
    assert marked == [entry] * bool(entry)


async def test_a_preview_shows_the_mail_and_can_do_nothing(desk: Desk) -> None:
    """
    The HTML stands in a frame without rights, and has none if it is opened alone.

    No other page has a frame or may be in one.
    """
    browser = await desk.administrator()
    page = await browser.open("/notices?kind=codes_issued&tongue=de&recipient=manager")
    assert "An die Führungskraft: Für Sie wurden Notfallcodes" in page.text
    assert "Alex Example" in page.text
    answer = await browser.client.get("/notices?kind=codes_issued&tongue=de")
    assert 'sandbox=""' in answer.text
    assert "frame-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    letter = await browser.client.get("/notices/letter?kind=codes_issued&tongue=de")
    assert '<html lang="de"' in letter.text
    assert SERIAL not in letter.text
    policy = letter.headers["content-security-policy"].split("; ")
    assert policy[0] == "sandbox"
    assert {"default-src 'none'", "form-action 'none'", "frame-ancestors 'self'"} < {
        *policy
    }
    assert letter.headers["cache-control"] == "no-store"
    other = (await browser.client.get("/channels")).headers
    assert "frame-src" not in other["content-security-policy"]
    assert "frame-ancestors 'none'" in other["content-security-policy"]
    others = [await desk.browser(), await with_role(desk, Role.HELP_DESK)]
    for path in ("/notices", "/notices/letter"):
        for each in others:
            assert "Alex" not in (await each.client.get(path)).text

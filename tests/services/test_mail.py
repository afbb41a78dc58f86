# SPDX-License-Identifier: Apache-2.0
"""Notices to people, by mail, through a real mail server (N6, N7)."""

import contextlib
import datetime as dt
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.domain.notices import GIVE_UP_MS, ChannelKind
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.personal_notices import PER_HOUR
from sparecode_node.membership.certificates import Authority
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.notices import letters, mail
from sparecode_node.services.people.administrators import Link
from tests.services.mail_server import LOGIN, PASSWORD, MailServer, mail_server
from tests.services.one_node import PIN, SERIAL, OneNode
from tests.services.receiver import AUTHORITY
from tests.services.test_notices import CREATE, UPDATE, lane, local_names, waiting

pytestmark = pytest.mark.asyncio

SENDER = "noreply@example.com"
ALICE = "alice@example.com"
SETTINGS = {"sender": SENDER, "login": LOGIN, "contact": "Call 4711."}


@pytest_asyncio.fixture
async def server(node: OneNode, tmp_path: Path) -> AsyncIterator[MailServer]:
    """Return a mail server, and end the channel's lane afterwards."""
    async with mail_server(tmp_path) as started, ending(node):
        yield started


@contextlib.asynccontextmanager
async def ending(node: OneNode) -> AsyncIterator[None]:
    yield
    for channel in list(node.delivery._lanes):
        await node.delivery._end(channel)


async def create(node: OneNode, url: str, **settings: object) -> None:
    await node.channels.create(
        node.admin(CREATE),
        **{
            "name": "siem",  # As `lane` looks for it.
            "kind": ChannelKind.MAIL,
            "address": url,
            "secret": PASSWORD,
            "allow_private": True,
            "authority": AUTHORITY.pem.decode(),
            **SETTINGS,
            **settings,
        },
    )


async def add_alice(
    node: OneNode, *, email: str = ALICE, language: str = "", name: str = "Alice A."
) -> None:
    await node.add_user()
    await node.users.update(
        node.admin("UserService/UpdateUser"),
        username="alice",
        email=email,
        language=language,
        display_name=name,
    )


def without_links(text: str) -> str:
    """Return the text of a mail without the links of alarms, which tests judge (N9)."""
    return re.sub(r"https://[^\s\"<]+/not-me\?[^\s\"<]+", "", text)


async def test_a_user_hears_of_codes_issued_in_their_name(
    node: OneNode, server: MailServer
) -> None:
    """(N6) In text and HTML, from the primary, over TLS and with a sign-in."""
    await add_alice(node)
    await create(node, server.url)
    codes = [each.code for each in (await node.issue()).codes]
    await (await lane(node)).step()
    (mail_,) = server.mails
    assert server.recipients == [ALICE]
    assert server.clear == [False]
    assert server.sign_ins == 1
    assert mail_["Subject"] == "Emergency codes were issued for you"
    assert mail_["From"] == f"Sparecode <{SENDER}>"
    assert mail_["Auto-Submitted"] == "auto-generated"
    for kind in ("plain", "html"):
        body = mail_.get_body((kind,))
        assert body is not None
        text = body.get_content()
        for words in ("Hello Alice A.,", SERIAL, "root", "Call 4711."):
            assert words in text
        assert not [code for code in codes if code in text]
        assert PIN not in without_links(text).replace(SERIAL, "")
    assert waiting(node) == []


async def test_a_replacement_names_the_token_that_goes_and_the_one_that_comes(
    node: OneNode, server: MailServer
) -> None:
    """(N6, N8) Its event is about the old token only."""
    await add_alice(node)
    await node.enroll("2002")
    await create(node, server.url)
    await node.tokens.replace(
        node.admin("TokenService/ReplaceToken"),
        serial=SERIAL,
        replacement_serial="2002",
        keep_pin=True,
    )
    working = await lane(node)
    while await working.step():
        pass
    named = {}
    for each in server.mails:
        body = each.get_body(("plain",))
        assert body is not None
        text = without_links(body.get_content())
        named[each["Subject"]] = [s for s in (SERIAL, "2002") if f": {s}" in text]
    assert named == {
        "A token is no longer assigned to you": [SERIAL],
        "A token was assigned to you": ["2002"],
    }
    assert len({each["Message-ID"] for each in server.mails}) == 2


async def test_a_user_reads_their_own_language(
    node: OneNode, server: MailServer
) -> None:
    """(N6)."""
    await add_alice(node, language="de-AT")
    await create(node, server.url)
    await node.issue()
    await (await lane(node)).step()
    (mail_,) = server.mails
    assert "Notfallcodes" in mail_["Subject"]
    html = mail_.get_body(("html",))
    assert html is not None
    assert '<html lang="de" dir="ltr">' in html.get_content()


async def test_no_mail_holds_a_secret(node: OneNode, server: MailServer) -> None:
    """(N3, N8) Whatever happens to a user; both addresses hear of a change."""
    await create(node, server.url)
    await add_alice(node)
    codes = [each.code for each in (await node.issue()).codes]
    assert await node.accepts(PIN + codes[0])
    assert await node.accepts(PIN + codes[1])
    for _ in range(5):
        node.clock.pass_s(10)
        assert not await node.accepts("9999" + codes[2])
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", email="new@example.com"
    )
    await node.login()
    await (await lane(node)).step()
    subjects = set(server.subjects)
    assert len(subjects) >= 5
    assert "The first of your emergency codes was used" in subjects
    assert {ALICE, "new@example.com"} == set(server.recipients)
    told = "".join(
        part.get_content()
        for each in server.mails
        for part in each.iter_parts()
        if part.get_content_type().startswith("text/")
    )
    assert SERIAL in told
    told = without_links(told)
    for secret in (*codes, *(each.replace("-", "") for each in codes), PASSWORD):
        assert secret.lower() not in told.lower()
    assert PIN not in told.replace(SERIAL, "")
    assert "http" not in told, "no link but that of the alarm, which signs no one in"
    assert waiting(node) == []


async def test_an_administrator_hears_of_a_sign_in_from_a_new_device(
    node: OneNode, server: MailServer
) -> None:
    """(N6) At the address of the linked user."""
    await add_alice(node)
    await node.administrators.update(
        node.admin("AdministratorService/UpdateAdministrator"),
        name="root",
        link=Link(username="alice"),
    )
    await create(node, server.url)
    await node.login()
    await (await lane(node)).step()
    assert server.subjects == ["Sign-in as administrator from a new device"]
    assert server.recipients == [ALICE]


async def test_a_repeated_mail_has_the_same_id(
    node: OneNode, server: MailServer
) -> None:
    """(N2) And that of another notice is another one."""
    await add_alice(node)
    await create(node, server.url)
    await node.issue()
    working = await lane(node)
    async with node.state.transaction() as transaction:
        (notice,) = await mail_notices(transaction)
    for _ in range(2):
        await working.sender.send(notice, node.clock.now)
    await node.issue()
    await working.step()
    ids = [str(each["Message-ID"]).strip() for each in server.mails]
    assert len(ids) == 4
    assert len(set(ids)) == 2
    assert ids[0].startswith(f"<{notice.notice_id}.")


async def mail_notices(transaction):
    from sparecode_node.queries import notices  # noqa: PLC0415

    return await notices.waiting(transaction, "siem", without=(), most=10)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({"RCPT": "550 5.1.1 unknown"}, "dead"),
        ({"DATA": "554 5.7.1 refused"}, "dead"),
        ({"RCPT": "451 4.7.1 greylisted"}, "retried"),
        ({"DATA": "452 4.2.2 full"}, "retried"),
        ({"RCPT": "421 4.3.2 closing"}, "paused"),
    ],
)
async def test_answers_count_as_smtp_says(
    node: OneNode, server: MailServer, answers: dict[str, str], outcome: str
) -> None:
    """(N2, N6) 4yz is temporary, 5yz permanent; 421 is about all mails (RFC 5321, 4.2.1)."""
    await add_alice(node)
    await create(node, server.url)
    await node.issue()
    server.answers |= answers
    working = await lane(node)
    await working.step()
    assert server.mails == []
    (state,) = waiting(node)
    assert state[1] == (outcome == "dead")
    assert (working._failures > 0) == (outcome == "paused")
    server.answers.clear()
    if outcome == "dead":
        step, answer = next(iter(answers.items()))
        assert state[2] == f"answered {answer[:3]} to {step}"
        await node.channels.send_again(
            node.admin("NoticeService/SendNoticesAgain"), channel="siem"
        )
    node.clock.pass_s(600)
    await working.step()
    assert server.recipients == [ALICE]


async def test_a_hanging_server_is_given_up_after_three_days(
    node: OneNode, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N2) And the time of each attempt is bounded."""
    monkeypatch.setattr(mail, "COMMAND_S", 4.0)
    await add_alice(node)
    await create(node, server.url)
    await node.issue()
    server.answers["RCPT"] = "HANG"
    working = await lane(node)
    await working.step()
    assert working.last_cause == "no answer to RCPT in time"
    assert waiting(node) == [("SaveEmergencyAccess", False, "")]
    node.clock.pass_s(GIVE_UP_MS // 1000)
    await working.step()
    ((_, dead, cause),) = waiting(node)
    assert (dead, cause) == (True, "no answer to RCPT in time")


async def test_a_server_that_answers_slowly_is_cut_off(
    node: OneNode, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N2) However long a command may take, a message has a total time."""
    monkeypatch.setattr(mail, "COMMAND_S", 3600.0)
    monkeypatch.setattr(mail, "TOTAL_S", 1.0)
    await add_alice(node)
    await create(node, server.url)
    await node.issue()
    server.answers["DATA"] = "HANG"
    working = await lane(node)
    await working.step()
    assert working.last_cause.endswith("in time")
    assert waiting(node) == [("SaveEmergencyAccess", False, "")]


async def test_a_wrong_password_pauses_the_channel(
    node: OneNode, server: MailServer
) -> None:
    """(N6) It is about the channel, not about a mail; and nothing tells the password."""
    await add_alice(node)
    await create(node, server.url, secret="not-the-password")
    await node.issue()
    working = await lane(node)
    await working.step()
    assert working.last_cause == "answered 535 to AUTH"
    assert working._failures > 0
    assert waiting(node) == [("SaveEmergencyAccess", False, "")]


@pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps"])
async def test_the_certificate_must_be_for_the_server(
    node: OneNode, tmp_path: Path, scheme: str
) -> None:
    """(N4, N6) And neither the password nor a mail is sent otherwise."""
    async with (
        mail_server(tmp_path, scheme=scheme, host="elsewhere.example") as wrong,
        ending(node),
    ):
        await add_alice(node)
        await create(node, wrong.url)
        await node.issue()
        working = await lane(node)
        await working.step()
        assert "certificate" in working.last_cause.lower()
        assert wrong.connections == 1
        assert (wrong.sign_ins, wrong.mails) == (0, [])


async def test_a_name_is_resolved_once_and_checked(
    node: OneNode, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N4) A name of a private address leads nowhere, whatever it was a moment ago."""
    port = server.url.rpartition(":")[2]
    asked: list[str] = []
    monkeypatch.setattr(mail, "resolve", local_names(asked))
    await create(node, f"smtp+starttls://mail.example:{port}", allow_private=False)
    await add_alice(node)
    await node.issue()
    working = await lane(node)
    await working.step()
    assert server.connections == 0
    assert "private" in working.last_cause
    assert asked == ["mail.example"]
    assert server.mails == []


async def test_no_clear_text_without_its_name(node: OneNode, tmp_path: Path) -> None:
    """
    (N6) A server that offers no STARTTLS, or an attacker in between, gets nothing.

    Without a login: a server that offers no TLS often offers no sign-in either.
    """
    async with mail_server(tmp_path, offers_tls=False) as bare, ending(node):
        await add_alice(node)
        await create(node, bare.url, login="", secret="")
        await node.issue()
        working = await lane(node)
        await working.step()
        assert bare.connections == 1
        assert bare.mails == []
        assert "STARTTLS" in working.last_cause


@pytest.mark.parametrize("scheme", ["smtps", "smtp+cleartext"])
async def test_a_scheme_names_the_use_of_tls(
    node: OneNode, tmp_path: Path, scheme: str
) -> None:
    """(N6) Clear text is used by name, and then without a password."""
    async with mail_server(tmp_path, scheme=scheme) as server, ending(node):
        await add_alice(node)
        clear = scheme == "smtp+cleartext"
        await create(node, server.url, **({"login": "", "secret": ""} if clear else {}))
        await node.issue()
        await (await lane(node)).step()
        assert len(server.mails) == 1
        assert server.sign_ins == (not clear)


@pytest.mark.parametrize(
    ("email", "name"),
    [
        ("alice@example.com", "Alice\r\nBcc: eve@example.com"),
        ("alice@example.com\r\nRCPT TO:<eve@example.com>", "Alice"),
        ("alice@example.com>\r\nDATA", "Alice"),
        ("alice@example.com, eve@example.com", "Alice"),
        ("+ü@[@a", "Alice"),
        ('"é,x"@example.com', "Alice"),
        ("", "<script>alert(1)</script> {{ 7 * 7 }} %(person)s"),
    ],
)
async def test_names_and_addresses_inject_nothing(
    node: OneNode, server: MailServer, email: str, name: str
) -> None:
    """(N6) Though the state has them, from before there was a check."""
    await add_alice(node)
    await create(node, server.url)
    for db in (node.primary_db, node.local_db):
        db.execute(
            "UPDATE users SET email = ?, display_name = ?", (email or ALICE, name)
        )
        db.commit()
    await node.issue()
    await (await lane(node)).step()
    assert "eve@example.com" not in server.recipients
    for each in server.mails:
        assert each["Bcc"] is None
        html = each.get_body(("html",))
        assert html is not None
        assert "<script>" not in html.get_content()
        assert "49" not in without_links(html.get_content()).replace(SERIAL, "")
    if email and email != ALICE:
        assert waiting(node)[0][1:] == (True, "the address on file is none")


async def test_letters_outside_ascii_reach_servers_that_know_them(
    node: OneNode, server: MailServer
) -> None:
    """(N6) RFC 6531."""
    await add_alice(node, email="jörg@example.com", name="Jörg")
    await create(node, server.url)
    await node.issue()
    await (await lane(node)).step()
    assert server.recipients == ["jörg@example.com"]


async def test_many_notices_of_a_kind_are_left_out(
    node: OneNode, server: MailServer
) -> None:
    """(N7) The last one of the hour says so; the next hour has its own."""
    await add_alice(node)
    await create(node, server.url)
    for _ in range(PER_HOUR + 3):
        await node.issue()
    working = await lane(node)
    await working.step()
    texts = [each.get_body(("plain",)).get_content() for each in server.mails]  # type: ignore[union-attr]
    assert ["left out" in each for each in texts] == [False] * (PER_HOUR - 1) + [True]
    node.clock.pass_s(3600)
    await node.login()
    await node.issue()
    await working.step()
    assert len(server.mails) == PER_HOUR + 1


async def test_a_test_shows_the_dialog_without_secrets(
    node: OneNode, server: MailServer
) -> None:
    """(N3) To the calling administrator, or else to the channel's sender."""
    await create(node, server.url)
    call = node.admin("NoticeService/TestChannel")
    tested = await node.channels.test(call, name="siem")
    assert (tested.delivered, tested.cause) == (True, "")
    assert server.recipients == [SENDER]
    for words in (
        "STARTTLS",
        "AUTH (name and password are not shown)",
        "DATA",
        "Date:",
    ):
        assert words in tested.sent
    assert "250 OK" in tested.received
    shown = tested.sent + tested.received + tested.cause
    import base64  # noqa: PLC0415

    for secret in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode()):
        assert secret not in shown
    server.answers["DATA"] = "550 5.7.1 \x1b[2Jspam"
    refused = await node.channels.test(call, name="siem")
    assert (refused.delivered, refused.cause) == (False, "answered 550 to DATA")
    assert waiting(node) == []


@pytest.mark.parametrize(
    ("template", "error", "is_bug"),
    [
        ("{{ contact }} {{ seed.x }}", "UndefinedError", False),
        ("{{ contact + 1 }}", "TypeError", True),
    ],
)
async def test_a_broken_template_tells_no_secret(
    node: OneNode,
    server: MailServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    template: str,
    error: str,
    is_bug: bool,
) -> None:
    """(N3) And stops no other mail: its notice is a dead letter."""
    for name in ("txt", "html"):
        (tmp_path / f"letter.{name}").write_text(template)
    monkeypatch.setattr(
        letters, "environment", lambda: broken_environment(str(tmp_path))
    )
    await add_alice(node)
    await create(node, server.url)
    await node.issue()
    await (await lane(node)).step()
    ((_, dead, cause),) = waiting(node)
    assert (dead, cause) == (True, f"the text of codes_issued fails: {error}")
    assert "channel_failed" not in caplog.text
    assert ("mail_unwritable" in caplog.text) == is_bug
    for secret in (PASSWORD, PIN, ALICE, "Call 4711."):
        assert secret not in caplog.text


def broken_environment(folder: str) -> object:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    return Environment(  # noqa: S701 - It renders nothing.
        loader=FileSystemLoader(folder), undefined=StrictUndefined
    )


@pytest.mark.parametrize(
    "change",
    [
        {"address": "smtp://mail.example:25"},
        {"address": "smtp+starttls://u:p@mail.example"},
        {"address": "smtp+starttls://mail.example/x"},
        {"address": "smtp+cleartext://mail.example"},
        {"secret": ""},
        {"sender": ""},
        {"sender": "no address"},
        {"sender": "jörg@example.com"},
        {"contact": ""},
        {"contact": "a\r\nb"},
        {"login": "a\r\nb"},
        {"kind": ChannelKind.FILE, "address": "", "secret": ""},
    ],
)
async def test_unusable_settings_of_mail_are_refused(
    node: OneNode, change: dict[str, object]
) -> None:
    """(N4, N6) A password above all is never sent in clear text."""
    settings = {"url": "smtp+starttls://mail.example"} | change
    if "address" in change:
        settings["url"] = settings.pop("address")
    with pytest.raises(InvalidFieldError):
        await create(node, **settings)


async def test_a_password_stays_with_its_server(
    node: OneNode, server: MailServer
) -> None:
    """(N5) Who moves the channel without knowing the password could read it there."""
    other = Authority.create("other", now=dt.datetime.now(dt.UTC))
    await create(node, server.url)
    with pytest.raises(InvalidFieldError):
        await node.channels.update(
            node.admin(UPDATE), name="siem", address="smtps://eve.example"
        )
    with pytest.raises(InvalidFieldError):
        await node.channels.update(
            node.admin(UPDATE), name="siem", authority=other.pem.decode()
        )
    await node.channels.update(
        node.admin(UPDATE), name="siem", authority=AUTHORITY.pem.decode()
    )
    await node.channels.update(node.admin(UPDATE), name="siem", contact="Call 12.")
    with pytest.raises(Refused) as second:
        await create(node, server.url, name="again")
    assert second.value.rejected.reason is Reason.CHANNEL_EXISTS


async def test_the_password_of_mail_is_sealed(node: OneNode) -> None:
    """(N3)."""
    await create(node, "smtps://mail.example")
    stored = "\n".join(node.primary_db.iterdump()).encode()
    for place in (stored, *node.replicator.entries):
        assert PASSWORD.encode() not in place
        assert PASSWORD.encode().hex().encode() not in place.lower()

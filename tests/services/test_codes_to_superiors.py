# SPDX-License-Identifier: Apache-2.0
"""Codes as a sealed message to the manager on file, through a real mail server (I13)."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.sealed_codes import MailOutcome, MessageObstacle
from sparecode_node.queries.approvals import ApprovalView
from sparecode_node.services.errors import (
    ApprovalNeededError,
    InvalidFieldError,
    Refused,
)
from sparecode_node.services.people.administrators import Link
from tests.services.mail_server import MailServer, mail_server
from tests.services.one_node import CONSOLES, PIN, SERIAL, OneNode
from tests.services.test_administrators import (
    OWN,
    TEMPORARY,
    change,
    settled,
    sign_in,
)
from tests.services.test_administrators import create as create_administrator
from tests.services.test_mail import ALICE, add_alice, create
from tests.services.test_notices import lane
from tests.services.test_sealed_messages import (
    allow,
    events,
    let_address_age,
    link_in,
    opened,
    send,
    waiting,
)

pytestmark = pytest.mark.asyncio

UPDATE = "UserService/UpdateUser"
BOSS, MALLORY = "boss@example.com", "mallory@example.com"


@pytest_asyncio.fixture
async def server(node: OneNode, tmp_path: Path) -> AsyncIterator[MailServer]:
    """Return the mail server of a cluster that sends codes to managers, too."""
    async with mail_server(tmp_path) as started:
        await create(node, started.url)
        await add_alice(node, name="Alice <A.>")
        await let_address_age(node)
        await change_user(node, manager_email=BOSS)
        await let_address_age(node)
        await allow(node, to_manager=True)
        yield started


async def change_user(node: OneNode, **changes: str) -> None:
    await node.users.update(node.admin(UPDATE), username="alice", **changes)


async def expect_refused(node: OneNode, words: str, serial: str = SERIAL) -> None:
    with pytest.raises(Refused) as refused:
        await send(node, serial=serial, to_manager=True)
    assert refused.value.rejected.reason is Reason.NOT_BY_MESSAGE
    assert refused.value.rejected.field == "to_manager"
    assert words in refused.value.rejected.detail
    assert waiting(node) == 0


def notices_of(node: OneNode) -> list[tuple[str, str]]:
    """Return the event and the recipient of each notice."""
    rows = node.primary_db.execute("SELECT notice_id, recipient FROM notices")
    return [(notice.rpartition("-")[0], recipient) for notice, recipient in rows]


def texts_of(server: MailServer, number: int = -1) -> list[str]:
    """Return the text and the HTML of a mail, with one space between words."""
    bodies = [server.mails[number].get_body((kind,)) for kind in ("plain", "html")]
    assert None not in bodies
    return [" ".join(body.get_content().split()) for body in bodies if body]


async def test_the_manager_gets_a_link_to_the_codes_of_the_user(
    node: OneNode, server: MailServer
) -> None:
    """(I13) The mail says whose codes they are, and the audit log to whom they went."""
    issued = await send(node, to_manager=True)
    assert issued.codes == ()
    assert issued.message is not None
    assert issued.message.outcome is MailOutcome.SENT
    assert (issued.message.recipient, issued.message.to_manager) == (BOSS, True)
    assert server.recipients == [BOSS]
    plain, html = texts_of(server)
    assert "a token of Alice <A.>. Each" in plain
    assert "a token of Alice &lt;A.&gt;. Each" in html
    for text in (plain, html):
        assert "as the manager of" in text
        assert "in person, and to no one else" in text
        assert "has not asked for codes" in text
        assert "Hello Alice" not in text
        assert SERIAL in text
        assert f"{CONSOLES[0]}/codes?for=manager#" in text
    link = link_in(server)
    got = await opened(node, link)
    assert got is not None
    codes = link.decrypt(got)
    assert not [code for code in codes if code in plain + html]
    assert got.token.username == "alice"
    assert await node.accepts(PIN + codes[0])
    to_whom = "by message to the user's manager"
    details = [detail for _, _, detail in events(node, *ACTIONS)]
    assert [each.partition(", ")[2] for each in details] == [
        f"allow_and_disable, {to_whom}",
        to_whom,
    ]
    assert not [each for each in details if BOSS in each]


ACTIONS = ("SaveEmergencyAccess", "OpenSealedCodes")


@pytest.mark.parametrize(
    ("language", "issued", "opened_words"),
    [
        (
            "en",
            "Delivery: by message, to the address on file of the user’s manager",
            "They went to your manager. You need not do anything if you expect this.",
        ),
        (
            "de",
            "Zustellung: mit einer Nachricht an die hinterlegte",
            "Sie gingen an Ihre Führungskraft.",
        ),
    ],
)
async def test_the_user_hears_that_the_codes_went_to_the_manager(
    node: OneNode, server: MailServer, language: str, issued: str, opened_words: str
) -> None:
    """(I13, N6) When they are issued, and when they are opened."""
    await change_user(node, language=language)
    await send(node, to_manager=True)
    (subject,) = [str(each["Subject"]) for each in server.mails]
    assert subject.startswith(
        "To the manager:" if language == "en" else "An die Führungskraft:"
    )
    assert await opened(node, link_in(server)) is not None
    await (await lane(node)).step()
    own = [
        text
        for number, recipient in enumerate(server.recipients)
        for text in texts_of(server, number)[:1]
        if recipient == ALICE and issued in text
    ]
    assert [opened_words in text for text in own] == [False, True]


async def test_codes_go_to_managers_only_if_the_policy_says_so(
    node: OneNode, server: MailServer
) -> None:
    """(I13) Both of its fields; at first neither does."""
    await allow(node, to_manager=False)
    await expect_refused(node, "codes_to_manager do not allow it")
    await allow(node, allowed=False, to_manager=True)
    await expect_refused(node, "codes_to_manager do not allow it")
    assert server.mails == []


async def test_a_user_without_a_manager_is_refused_with_the_missing_field(
    node: OneNode, server: MailServer
) -> None:
    await change_user(node, manager_email="")
    await expect_refused(node, "alice has no manager on file")
    await expect_refused(node, "(manager_email)")
    (_, manager) = await node.sealed_messages.choices(TokenSerial(SERIAL))
    assert (manager.recipient, manager.obstacle) == ("", MessageObstacle.NO_ADDRESS)
    assert server.mails == []


async def test_no_codes_go_to_a_manager_who_was_just_put_on_file(
    node: OneNode, server: MailServer
) -> None:
    """
    (I13, N8) An administrator who edits the manager would else be sent the codes.

    The user and the former manager hear of it at once. The age of one address says
    nothing of the other one.
    """
    await change_user(node, manager_email=MALLORY)
    await expect_refused(node, "manager was set or changed within the last 72 hours")
    (own, manager) = await node.sealed_messages.choices(TokenSerial(SERIAL))
    assert (own.obstacle, manager.obstacle) == (None, MessageObstacle.NEW_ADDRESS)
    (event,) = [each for each in notices_of(node) if each[1] == MALLORY]
    told = {recipient for number, recipient in notices_of(node) if number == event[0]}
    assert told == {ALICE, BOSS, MALLORY}
    node.clock.pass_s(71 * 3600)
    await node.login()
    await expect_refused(node, "manager was set or changed within the last 72 hours")
    await change_user(node, email="alice@new.example")
    node.clock.pass_s(3600 + 1)
    await node.login()
    issued = await send(node, to_manager=True)
    assert issued.message is not None
    assert issued.message.recipient == MALLORY
    with pytest.raises(Refused, match="address of alice was set or changed"):
        await send(node)


async def test_no_administrator_is_sent_codes_as_a_manager(
    node: OneNode, server: MailServer
) -> None:
    """(I13) The log would say that no administrator has seen them."""
    await node.add_user("dora", serial="3003")
    await node.users.update(
        node.admin(UPDATE), username="dora", email=BOSS.title().replace("Com", "com")
    )
    await create_administrator(node, link=Link("dora"))
    root, node.bearer = node.bearer, await sign_in(node, TEMPORARY)
    await change(node, old=TEMPORARY)
    node.bearer = root
    node.bearer = await sign_in(node, OWN)
    await expect_refused(node, "is your own one on file")
    assert server.mails == []
    node.bearer = root
    issued = await send(node, to_manager=True)
    assert issued.message is not None
    assert issued.message.outcome is MailOutcome.SENT


async def test_no_codes_for_a_token_without_a_pin_go_to_a_manager(
    node: OneNode, server: MailServer
) -> None:
    await node.add_user("bob", serial="2002", pin="")
    await node.users.update(node.admin(UPDATE), username="bob", manager_email=BOSS)
    node.clock.pass_s(72 * 3600)
    await node.login()
    await expect_refused(node, "token 2002 has no PIN", "2002")


async def test_only_codes_by_message_go_to_managers(node: OneNode) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await node.emergency.issue(
            node.admin("EmergencyAccessService/IssueTokencodes"),
            serial=SERIAL,
            terms=None,
            to_manager=True,
        )
    assert caught.value.field == "to_manager"


async def test_a_repeated_request_names_the_manager_of_the_first_one(
    node: OneNode, server: MailServer
) -> None:
    """(I13, Q1) Even if another one is on file by now, and no channel any more."""
    request_id = "0a0a0a0a-0b0b-4c0c-8d0d-0e0e0e0e0e10"
    first = await send(node, request_id=request_id, to_manager=True)
    await change_user(node, manager_email=MALLORY)
    await node.channels.remove(node.admin("NoticeService/RemoveChannel"), name="siem")
    again = await send(node, request_id=request_id, to_manager=True)
    assert again.saved == first.saved
    assert again.message is not None
    assert (again.message.recipient, again.message.to_manager) == (BOSS, True)
    with pytest.raises(Refused) as refused:  # The same request for another recipient.
        await send(node, request_id=request_id)
    assert refused.value.rejected.reason is Reason.REQUEST_ID_REUSED
    assert len(server.mails) == 1


async def waits(node: OneNode) -> list[ApprovalView]:
    context = node.admin("AdministratorService/ListApprovals")
    read = await node.approvals.list(dataclasses.replace(context, request_id=""))
    return list(read.value.items)


async def approve(node: OneNode, bearer: str, number: int) -> None:
    mine, node.bearer = node.bearer, bearer
    await node.approvals.approve(
        node.admin("AdministratorService/Approve"), approval_id=number
    )
    node.bearer = mine


@pytest.mark.parametrize(
    ("to_manager", "words", "recipient", "mail"),
    [
        (False, "the user", ALICE, "by message, to the user’s address on file"),
        (
            True,
            "the user's manager",
            BOSS,
            "by message, to the address on file of the user’s manager",
        ),
    ],
)
async def test_an_approver_reads_to_whom_codes_go_by_message(
    node: OneNode,
    server: MailServer,
    to_manager: bool,
    words: str,
    recipient: str,
    mail: str,
) -> None:
    """
    (P3, I13) In the request and in the mail, and the approval is for nothing else.

    Root has assigned the token and set its PIN, so another one approves (I10). The audit
    log and the mail have no address.
    """
    await node.add_user("dora", serial="3003")
    await node.users.update(node.admin(UPDATE), username="dora", email="d@example.com")
    await create_administrator(node, role=Role.SUPER_ADMIN, link=Link("dora"))
    root, node.bearer = node.bearer, await sign_in(node, TEMPORARY)
    await change(node, old=TEMPORARY)
    node.bearer = root
    dora = await sign_in(node, OWN)
    with pytest.raises(ApprovalNeededError):
        await send(node, to_manager=to_manager)
    (waiting_one,) = await waits(node)
    assert waiting_one.description.endswith(f", by message to {words}")
    assert waiting_one.recipient == recipient
    (pending,) = [each for each in events(node, *ACTIONS) if each[1] == "pending"]
    assert pending[2].endswith(f", by message to {words}")
    assert recipient not in pending[2]
    await (await lane(node)).step()
    (number,) = [
        number
        for number, each in enumerate(server.mails)
        if each["Subject"] == "A request waits for your approval"
    ]
    assert server.recipients[number] == "d@example.com"
    for text in texts_of(server, number):
        assert mail in text
        assert recipient not in text
    await approve(node, dora, waiting_one.approval_id)
    for other in (
        node.issue,
        lambda: send(node, to_manager=not to_manager),
    ):
        with pytest.raises(ApprovalNeededError):
            await other()
    issued = await send(node, to_manager=to_manager)
    assert issued.message is not None
    assert issued.message.recipient == recipient


async def test_an_approval_is_void_for_another_address(
    node: OneNode, server: MailServer
) -> None:
    """(P3, I13) The approver has read the first one."""
    dora = await settled(node, Role.SUPER_ADMIN)
    with pytest.raises(ApprovalNeededError):
        await send(node, to_manager=True)
    (waiting_one,) = await waits(node)
    node.primary_db.execute("UPDATE users SET manager_email = ?", (MALLORY,))
    node.local_db.execute("UPDATE users SET manager_email = ?", (MALLORY,))
    await approve(node, dora, waiting_one.approval_id)
    with pytest.raises(ApprovalNeededError):
        await send(node, to_manager=True)
    assert server.mails == []


async def test_a_user_who_never_heard_of_the_manager_needs_an_approval(
    node: OneNode, server: MailServer
) -> None:
    """(I13, N8) Without an address the user was not told who the manager is."""
    root = node.bearer
    dora = await settled(node, Role.SUPER_ADMIN)
    await change_user(node, email="")
    node.bearer = dora
    with pytest.raises(ApprovalNeededError):
        await send(node, to_manager=True)
    (waiting_one,) = await waits(node)
    assert waiting_one.description == (
        "codes for a user who perhaps never heard of the manager on file, by "
        "message to the user's manager"
    )
    assert server.mails == []
    await approve(node, root, waiting_one.approval_id)
    issued = await send(node, to_manager=True)
    assert issued.message is not None
    assert issued.message.recipient == BOSS

# SPDX-License-Identifier: Apache-2.0
"""Codes as a sealed message, through a real mail server (I13)."""

import asyncio
import hashlib
import json
import logging
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jinja2 import DictLoader

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import NodeId, RequestId, TokenSerial
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.sealed_codes import (
    OPENED_MS,
    WAITING_MS,
    MailOutcome,
    MessageObstacle,
)
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.context import Anonymous, CallContext
from sparecode_node.services.emergency.emergency_access import IssuedCodes, SetTerms
from sparecode_node.services.emergency.issuing import Lifetime
from sparecode_node.services.emergency.sealed_messages import OpenedCodes
from sparecode_node.services.errors import Refused
from sparecode_node.services.notices import code_letters, letters, mail
from sparecode_node.services.notices.letters import LetterUnwritableError
from sparecode_node.services.secrets.sealed_links import hash_of
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.emergency_access import OpenSealedCodes
from sparecode_node.statemachine.results import Result
from tests.services.mail_server import MailServer, mail_server
from tests.services.one_node import CONSOLES, PIN, SERIAL, OneNode
from tests.services.test_mail import ALICE, add_alice, create

pytestmark = pytest.mark.asyncio

TEMPLATES = letters.HERE / "templates"
ISSUE = "EmergencyAccessService/IssueTokencodes"
PAGE = "a number that the page has drawn"
TOGETHER_S = 30
"""Until both of two calls propose."""


@pytest_asyncio.fixture
async def server(node: OneNode, tmp_path: Path) -> AsyncIterator[MailServer]:
    """Return the mail server of a cluster whose policy allows codes by message."""
    async with mail_server(tmp_path) as started:
        await create(node, started.url)
        await add_alice(node)
        await let_address_age(node)
        await allow(node)
        yield started


async def let_address_age(node: OneNode) -> None:
    """No codes go to an address that is less than 72 hours old."""
    node.clock.pass_s(72 * 3600)
    await node.login()


async def allow(
    node: OneNode, *, allowed: bool = True, to_manager: bool = False
) -> None:
    policy = (await node.policies.get(node.admin("PolicyService/GetPolicy"))).value
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=policy.version,
        values={"codes_by_message": allowed, "codes_to_manager": to_manager},
    )


async def send(
    node: OneNode,
    *,
    serial: str = SERIAL,
    count: int = 3,
    request_id: str = "",
    keep: bool = False,
    to_manager: bool = False,
) -> IssuedCodes:
    return await node.emergency.issue(
        node.admin(ISSUE, request_id),
        serial=serial,
        count=count,
        by_message=True,
        to_manager=to_manager,
        terms=SetTerms(
            lifetime=Lifetime(duration_ms=24 * 3_600_000),
            recovery=RecoveryPolicy.ALLOW_AND_DISABLE,
            keep_unused_codes=keep,
        ),
    )


@dataclass
class Link:
    """What the page of a mailed link computes, as `static/sealed.js` does."""

    secret: bytes

    def _derived(self, name: str) -> bytes:
        info = f"sparecode sealed codes: {name}".encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(
            self.secret
        )

    @property
    def opener(self) -> str:
        return urlsafe_b64encode(self._derived("opener")).decode().rstrip("=")

    def decrypt(self, opened: OpenedCodes) -> list[str]:
        codes: list[str] = json.loads(
            AESGCM(self._derived("key")).decrypt(
                opened.ciphertext[:12], opened.ciphertext[12:], opened.associated
            )
        )
        return codes


def link_in(server: MailServer) -> Link:
    """Return the link of the last mail."""
    body = server.mails[-1].get_body(("plain",))
    assert body is not None
    found = re.search(r"#([A-Za-z0-9_-]{43})\r?$", body.get_content(), re.MULTILINE)
    assert found
    return Link(urlsafe_b64decode(found[1] + "="))


def stranger(peer: str = "192.0.2.9") -> CallContext:
    return CallContext(
        caller=Anonymous(), request_id="", method="codes", deadline_s=5, peer=peer
    )


async def opened(node: OneNode, link: Link, page: str = PAGE) -> OpenedCodes | None:
    return await node.sealed_messages.open(stranger(), opener=link.opener, page=page)


def events(node: OneNode, *actions: str) -> list[tuple[str, str, str]]:
    rows = node.primary_db.execute(
        "SELECT action, outcome, detail FROM audit_events ORDER BY sequence"
    )
    return [row for row in rows if row[0] in actions]


def waiting(node: OneNode) -> int:
    return node.primary_db.execute("SELECT count(*) FROM sealed_codes").fetchone()[0]


async def test_the_link_opens_the_codes_once(node: OneNode, server: MailServer) -> None:
    """(I13) The administrator sees no code; the page decrypts them; they work."""
    issued = await send(node)
    assert issued.codes == ()
    assert issued.message is not None
    assert issued.message.outcome is MailOutcome.SENT
    assert issued.message.recipient == ALICE
    assert server.recipients == [ALICE]
    assert server.clear == [False]
    link = link_in(server)
    got = await opened(node, link)
    assert got is not None
    codes = link.decrypt(got)
    assert len(codes) == 3
    assert (got.token.serial, got.token.username) == (SERIAL, "alice")
    assert await opened(node, link, "another page") is None
    assert await node.accepts(PIN + codes[0])
    (event,) = events(node, "OpenSealedCodes")
    assert event == (
        "OpenSealedCodes",
        "applied",
        f"set {issued.saved.set_id}, by message to the user",
    )


async def test_a_page_whose_answer_was_lost_gets_the_codes_again_for_a_minute(
    node: OneNode, server: MailServer
) -> None:
    """(I13) The same page alone. It is one event; then the codes are gone."""
    await send(node)
    link = link_in(server)
    first = await opened(node, link)
    assert first == await opened(node, link)
    assert len(events(node, "OpenSealedCodes")) == 1
    node.clock.pass_s(OPENED_MS / 1000 + 1)
    assert await opened(node, link) is None
    await node.accepts("0")  # The time of the state goes on with each entry.
    assert waiting(node) == 0


async def test_two_pages_at_once_are_one_opening(
    node: OneNode, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I13) Both read the codes before either is committed; the commit decides."""
    await send(node)
    link = link_in(server)
    both, propose = asyncio.Barrier(2), node.replicator.propose

    async def together(proposal: Proposal, *, timeout_s: float) -> Result:
        async with asyncio.timeout(TOGETHER_S):
            await both.wait()
        return await propose(proposal, timeout_s=timeout_s)

    monkeypatch.setattr(node.replicator, "propose", together)
    answers = await asyncio.gather(
        *(opened(node, link, f"page {number}") for number in range(2))
    )
    assert [each is None for each in answers].count(True) == 1
    outcomes = [outcome for _, outcome, _ in events(node, "OpenSealedCodes")]
    assert outcomes == ["applied", "refused"]


async def test_codes_that_another_node_has_just_opened_are_not_opened_again(
    node: OneNode, server: MailServer
) -> None:
    """(I13) What another node has committed a moment ago counts."""
    await send(node)
    link = link_in(server)
    node.replicator.before_apply = UnstampedCall.of_node(
        NodeId("n2"),
        OpenSealedCodes(opener=hash_of(link.opener), page=hash_of("another page")),
        RequestId("elsewhere"),
    )
    assert await opened(node, link) is None


async def test_unopened_codes_are_void_after_an_hour(
    node: OneNode, server: MailServer
) -> None:
    """(I13) With events of their own, and a notice to the user."""
    issued = await send(node)
    link = link_in(server)
    codes = link.decrypt(node_codes(node))
    node.clock.pass_s(WAITING_MS / 1000 + 1)
    assert not await node.accepts(PIN + codes[0])
    assert await opened(node, link) is None
    assert waiting(node) == 0
    assert events(node, "CODES_NOT_OPENED", "CODES_VOIDED") == [
        (
            "CODES_NOT_OPENED",
            "noted",
            f"set {issued.saved.set_id}, by message to the user",
        ),
        ("CODES_VOIDED", "noted", "not opened in time: 3 codes"),
    ]
    kinds = node.primary_db.execute("SELECT kind FROM notices ORDER BY number")
    assert [kind for (kind,) in kinds][-1:] == ["codes_ended"]


def node_codes(node: OneNode) -> OpenedCodes:
    """Return what the state has, and what a page would get."""
    set_id, ciphertext, user_id = node.primary_db.execute(
        "SELECT set_id, ciphertext, user_id FROM sealed_codes "
        "JOIN code_sets USING (set_id) JOIN tokens USING (serial)"
    ).fetchone()
    return OpenedCodes(
        ciphertext=ciphertext,
        associated=f"sparecode {node.ring.cluster_id} {set_id} {user_id}".encode(),
        token=None,  # type: ignore[arg-type]
        ends_at_ms=None,
        issued_at_ms=0,
        issuer="",
    )


async def test_opened_codes_stay_valid_after_the_hour(
    node: OneNode, server: MailServer
) -> None:
    """(I13) Only what was not opened ends early."""
    await send(node)
    link = link_in(server)
    got = await opened(node, link)
    assert got is not None
    node.clock.pass_s(2 * WAITING_MS / 1000)
    assert await node.accepts(PIN + link.decrypt(got)[0])
    assert events(node, "CODES_NOT_OPENED") == []


async def test_other_live_codes_stay_when_unopened_ones_end(
    node: OneNode, server: MailServer
) -> None:
    """(I13, I8) The set alone is void: kept codes are not."""
    kept = (await node.issue(lifetime=Lifetime(duration_ms=24 * 3_600_000))).codes[0]
    await send(node, keep=True)
    node.clock.pass_s(WAITING_MS / 1000 + 1)
    assert await node.accepts(PIN + kept.code)


@pytest.mark.parametrize(
    "end", ["disable", "issue again", "disable the user", "disable the token"]
)
async def test_codes_that_no_longer_work_are_not_handed_out(
    node: OneNode, server: MailServer, end: str
) -> None:
    """(I13, R3)."""
    await send(node)
    link = link_in(server)
    if end == "disable":
        await node.emergency.disable(
            node.admin("EmergencyAccessService/DisableEmergencyAccess"), serial=SERIAL
        )
    elif end == "issue again":
        await node.issue()
    elif end == "disable the user":
        await node.users.update(
            node.admin("UserService/UpdateUser"), username="alice", enabled=False
        )
    else:
        await node.tokens.disable(
            node.admin("TokenService/DisableToken"), serial=SERIAL
        )
    assert await opened(node, link) is None
    # A disabled user can be enabled again within the hour; all else is void.
    assert waiting(node) == (end == "disable the user")


async def test_a_locked_user_can_open_the_codes(
    node: OneNode, server: MailServer
) -> None:
    """(L5) A lock ends by itself, and anyone can cause one."""
    await send(node)
    for _ in range(5):
        await node.accepts("0000ABCDEFGH")
        node.clock.pass_s(6)
    assert await opened(node, link_in(server)) is not None


async def test_wrong_openers_reach_neither_the_log_nor_the_codes(
    node: OneNode, server: MailServer
) -> None:
    """(I13) A guess writes nothing, and the codes still wait."""
    await send(node)
    before = node.primary_db.execute("SELECT count(*) FROM requests").fetchone()
    for guess in ("", "A" * 43, hashlib.sha256(b"guess").hexdigest()):
        found = await node.sealed_messages.open(stranger(), opener=guess, page=PAGE)
        assert found is None
    after = node.primary_db.execute("SELECT count(*) FROM requests").fetchone()
    assert after == before
    assert events(node, "OpenSealedCodes") == []
    assert await opened(node, link_in(server)) is not None


async def test_what_the_cluster_keeps_does_not_open_the_codes(
    node: OneNode, server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    """
    (I13, I9) State, log, key ring and log file hold neither code nor key.

    What a node is shown at the opening, it can remember; the key is not among it.
    """
    with caplog.at_level(logging.DEBUG):
        issued = await send(node)
        link = link_in(server)
        got = await opened(node, link)
    assert got is not None
    keys = [link.secret, link._derived("key")]
    ring = node.key_holder.ring
    held = [
        *node.replicator.entries,
        "\n".join(node.primary_db.iterdump()).encode(),
        "\n".join(node.local_db.iterdump()).encode(),
        # All but what the mail server logs.
        repr(
            [vars(each) for each in caplog.records if each.name != "mail.log"]
        ).encode(),
        repr(issued).encode() + repr(got).encode(),
        *(ring.subkey(key_id, "any") for key_id in ring.key_ids),
    ]
    secrets = [
        each.encode()
        for code in link.decrypt(got)
        for each in (code, code.replace("-", ""))
    ]
    for key in keys:
        urlsafe = hashlib.sha256(key).hexdigest()
        secrets += [key, key.hex().encode(), urlsafe.encode()]
    for key in (*keys, link._derived("opener")):
        secrets += [urlsafe_b64encode(key).rstrip(b"="), b64encode(key).rstrip(b"=")]
    for each in held:
        assert not [secret for secret in secrets if secret in each]
    for key_id in ring.key_ids:
        for purpose in ("sealed", "code", "channel-secret"):
            with pytest.raises(InvalidTag):
                AESGCM(ring.subkey(key_id, purpose)[:32]).decrypt(
                    got.ciphertext[:12], got.ciphertext[12:], got.associated
                )


async def test_the_mail_has_a_link_and_no_code(
    node: OneNode, server: MailServer
) -> None:
    """(I13, N3) A click on any console; what follows `#` goes to no server."""
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", language="de"
    )
    issued = await send(node)
    (mail_,) = server.mails
    assert mail_["Message-ID"] == f"<{issued.saved.set_id}.codes@example.com>"
    link = link_in(server)
    got = await opened(node, link)
    assert got is not None
    for kind in ("plain", "html"):
        body = mail_.get_body((kind,))
        assert body is not None
        text = body.get_content()
        for console in CONSOLES:
            assert f"{console}/codes?language=de#" in text
        assert "Call 4711." in text
        assert not [code for code in link.decrypt(got) if code in text]
    assert mail_["Subject"] == "Ihre Notfallcodes liegen bereit"


@pytest.mark.parametrize(
    ("step", "answer"),
    [("RCPT", "550 no"), ("DATA", "552 full"), ("RCPT", "450 later")],
)
async def test_codes_whose_mail_is_refused_are_void_at_once(
    node: OneNode, server: MailServer, step: str, answer: str
) -> None:
    """(I13) And the administrator is told."""
    server.answers[step] = answer
    issued = await send(node)
    assert issued.message is not None
    assert issued.message.outcome is MailOutcome.FAILED
    assert issued.message.cause == f"answered {answer[:3]} to {step}"
    assert waiting(node) == 0
    (noted, voided) = events(node, "NoteSealedCodes", "CODES_VOIDED")
    assert "mail not sent: answered" in noted[2]
    assert voided[2] == "mail with their link not sent: 3 codes"


async def test_codes_whose_mail_was_perhaps_taken_wait_for_the_hour(
    node: OneNode, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I13) It is not sent again: no other mail could have the same key."""
    monkeypatch.setattr(mail, "COMMAND_S", 2.0)
    server.answers["DATA"] = "HANG"
    issued = await send(node)
    assert issued.message is not None
    assert issued.message.outcome is MailOutcome.UNKNOWN
    assert waiting(node) == 1
    assert events(node, "CODES_VOIDED") == []


async def test_a_repeated_request_sends_no_second_mail(
    node: OneNode, server: MailServer
) -> None:
    """(I13, Q1) The key of the first one is gone."""
    request_id = "0a0a0a0a-0b0b-4c0c-8d0d-0e0e0e0e0e0e"
    first = await send(node, request_id=request_id)
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", email="new@example.com"
    )
    again = await send(node, request_id=request_id)
    assert again.saved == first.saved
    assert again.withheld
    assert again.message is not None
    assert again.message.outcome is MailOutcome.UNKNOWN
    assert again.message.recipient == ALICE
    assert len(server.mails) == 1


async def test_a_repeated_request_is_answered_without_a_channel(
    node: OneNode, server: MailServer
) -> None:
    """(I13, Q1) The set is issued, whatever became of the channel since."""
    request_id = "0a0a0a0a-0b0b-4c0c-8d0d-0e0e0e0e0e0f"
    first = await send(node, request_id=request_id)
    await node.channels.remove(node.admin("NoticeService/RemoveChannel"), name="siem")
    again = await send(node, request_id=request_id)
    assert again.saved == first.saved
    assert again.message is not None
    assert again.message.outcome is MailOutcome.UNKNOWN
    assert again.message.recipient == ALICE
    with pytest.raises(Refused, match="no channel for mail is enabled"):
        await send(node)


async def test_nothing_is_mailed_before_the_commit(
    node: OneNode, server: MailServer
) -> None:
    """(I2, I13)."""
    node.replicator.down = OutcomeUnknownError("no quorum")
    with pytest.raises(OutcomeUnknownError):
        await send(node)
    assert server.mails == []


async def test_codes_go_by_message_only_if_the_policy_says_so(
    node: OneNode, server: MailServer
) -> None:
    """(I13, I9) At first it does not."""
    await allow(node, allowed=False)
    await expect_refused(node, "policy codes_by_message")
    assert server.mails == []


async def test_codes_go_to_no_address_that_has_just_changed(
    node: OneNode, server: MailServer
) -> None:
    """(I13, N8) An attacker who changes the address would else be sent the codes."""
    await node.users.update(
        node.admin("UserService/UpdateUser"),
        username="alice",
        email="mallory@example.com",
    )
    await expect_refused(node, "was set or changed within the last 72 hours")
    node.clock.pass_s(73 * 3600)
    await node.login()
    issued = await send(node)
    assert issued.message is not None
    assert issued.message.recipient == "mallory@example.com"


async def test_codes_need_an_address_and_a_channel_that_encrypts(
    node: OneNode, server: MailServer
) -> None:
    """(I13) The link would else be read on its way."""
    await node.channels.remove(node.admin("NoticeService/RemoveChannel"), name="siem")
    await create(
        node, "smtp+cleartext://127.0.0.1:1", login="", secret="", authority=""
    )
    await expect_refused(node, "encrypts its connection")
    await node.channels.remove(node.admin("NoticeService/RemoveChannel"), name="siem")
    await create(node, server.url)
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", email=""
    )
    await expect_refused(node, "has no address on file")


async def expect_refused(node: OneNode, words: str, *, serial: str = SERIAL) -> None:
    with pytest.raises(Refused) as refused:
        await send(node, serial=serial)
    assert refused.value.rejected.reason is Reason.NOT_BY_MESSAGE
    assert words in refused.value.rejected.detail
    assert waiting(node) == 0


async def test_codes_do_not_go_by_message_for_a_token_without_a_pin(
    node: OneNode, server: MailServer
) -> None:
    """(I13, A1) Its codes alone sign in, so the mail would be enough."""
    await node.enroll("2002", pin_rule=PinRule.NONE)
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="2002", username="alice"
    )
    await expect_refused(node, "token 2002 has no PIN", serial="2002")
    found = await node.sealed_messages.choices(TokenSerial("2002"))
    assert found[0].obstacle is MessageObstacle.NO_PIN
    (own, _) = await node.sealed_messages.choices(TokenSerial(SERIAL))
    assert (own.recipient, own.obstacle) == (ALICE, None)
    assert server.mails == []


async def test_a_call_that_is_canceled_leaves_no_set_without_its_note(
    node: OneNode, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I13) The mail is tried to its end, and a node that stops waits for it."""
    monkeypatch.setattr(mail, "COMMAND_S", 2.0)
    server.answers["RCPT"] = "HANG"
    call = asyncio.create_task(send(node))
    async with asyncio.timeout(60):
        while not server.sign_ins:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await node.sealed_messages.close()
    assert len(events(node, "NoteSealedCodes")) == 1


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ {}[links[0]] }}", "UndefinedError"),
        ("{{ links[0] + 1 }}", "TypeError"),
        ("{{ links[0].x }}", "UndefinedError"),
        ("{{ {}[links] }}", "UndefinedError"),
    ],
)
async def test_a_broken_template_tells_no_link(
    node: OneNode,
    server: MailServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    template: str,
    error: str,
) -> None:
    """
    (I13, N3) A flaw of the node is raised, quotes no link, and leaves no live codes.

    A caller logs the words of the error, and those of its cause and context.
    """
    with (TEMPLATES / "codes.txt").open() as file:
        broken = file.read() + template
    environment = letters.environment()
    monkeypatch.setattr(
        code_letters,
        "environment",
        lambda: environment.overlay(
            loader=DictLoader({"codes.txt": broken, "codes.html": broken})
        ),
    )
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(LetterUnwritableError, match=error) as raised,
    ):
        await send(node)
    logging.getLogger("a caller").error("failed", exc_info=raised.value)
    shown: list[BaseException | None] = [raised.value]
    while shown[-1] is not None:
        shown += [shown[-1].__cause__ or shown[-1].__context__]
    records = repr([vars(each) for each in caplog.records])
    assert not re.search(r"#[\w-]{43}", caplog.text + records + repr(shown))
    assert "a sealed message failed" in caplog.text
    assert "<template>" in raised.value.places
    assert server.mails == []
    assert waiting(node) == 0
    (noted, _) = events(node, "NoteSealedCodes", "CODES_VOIDED")
    assert "mail not sent: error of the node" in noted[2]

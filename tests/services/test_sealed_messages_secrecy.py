# SPDX-License-Identifier: Apache-2.0
"""
Codes by message are driven through everything, and looked for in whatever is left (I13).

In one process, because codes go to no address that is less than 72 hours old, and the
clock of real nodes cannot be moved. `tests/system/test_canary.py` looks for all other
secrets.
"""

import logging
import sqlite3
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from jinja2 import DictLoader

from sparecode_node.daemon.logs import JsonFormatter, TextFormatter
from sparecode_node.domain.sealed_codes import WAITING_MS, MailOutcome
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files.audit_export import ExportFormat
from sparecode_node.services.notices import code_letters, letters
from sparecode_node.services.notices.letters import LetterUnwritableError
from sparecode_node.services.secrets import sealed_links
from sparecode_node.services.secrets.sealed_links import SealedLink
from sparecode_node.statemachine.snapshots import write_snapshot
from tests.services.mail_server import MailServer, mail_server
from tests.services.one_node import OneNode
from tests.services.test_audit_export import exported
from tests.services.test_codes_to_superiors import BOSS
from tests.services.test_mail import ALICE, create, ending
from tests.services.test_notices import lane
from tests.services.test_sealed_messages import (
    Link,
    allow,
    let_address_age,
    link_in,
    opened,
    send,
    stranger,
)
from tests.written_secrets import forms

pytestmark = pytest.mark.asyncio

PIN, WRONG_PIN = "90817263", "93847561"
"""Long ones: fewer digits are found in times and hashes by chance."""


@dataclass
class Drawn:
    """The codes and the link of each set, also of one whose mail was never sent."""

    codes: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    def secrets(self) -> list[str | bytes]:
        """Return what must be written down nowhere."""
        keys = [link.secret for link in self.links]
        keys += [link._derived("key") for link in self.links]
        return [
            *(PIN, WRONG_PIN),
            *self.codes,
            *(each.replace("-", "") for each in self.codes),
            *keys,
            *(urlsafe_b64encode(each).rstrip(b"=") for each in keys),
            *(link.opener for link in self.links),
        ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Note the codes and the key of everything that is sealed."""
    seal, noted = sealed_links.seal, Drawn()

    def watched(
        entropy: Entropy, codes: Sequence[str], *, associated: bytes
    ) -> SealedLink:
        sealed = seal(entropy, codes, associated=associated)
        noted.codes += codes
        noted.links.append(Link(urlsafe_b64decode(sealed.secret + "=")))
        return sealed

    monkeypatch.setattr(sealed_links, "seal", watched)
    return noted


@pytest_asyncio.fixture
async def server(node: OneNode, tmp_path: Path) -> AsyncIterator[MailServer]:
    """Return the mail server of a cluster that mails codes to users and managers."""
    async with mail_server(tmp_path) as started, ending(node):
        await create(node, started.url)
        await node.add_user(pin=PIN)
        await node.users.update(
            node.admin("UserService/UpdateUser"),
            username="alice",
            email=ALICE,
            manager_email=BOSS,
        )
        await let_address_age(node)
        await allow(node, to_manager=True)
        yield started


async def drive(
    node: OneNode, server: MailServer, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Send, open, use, refuse, break and lose codes; return what is shown meanwhile."""
    issued, errors = [await send(node)], []
    link = link_in(server)
    got = await opened(node, link)
    assert got is not None
    assert link.decrypt(got) == drawn.codes
    first, second, _ = drawn.codes
    assert await opened(node, link, "another page") is None
    assert await node.accepts(PIN + first)
    for wrong in (PIN + first, WRONG_PIN + second, second):
        node.clock.pass_s(6)
        assert not await node.accepts(wrong)
    assert not await node.accepts(PIN + second, username=PIN + second)
    for opener in (link.opener[:-1], link.opener * 2, PIN + second):
        try:
            assert not await node.sealed_messages.open(
                stranger(), opener=opener, page=second
            )
        except InvalidFieldError as error:
            errors.append(error)

    issued.append(await send(node, to_manager=True))
    server.answers["RCPT"] = "550 no"
    issued.append(await send(node))
    assert issued[-1].message is not None
    assert issued[-1].message.outcome is MailOutcome.FAILED
    server.answers.clear()
    with monkeypatch.context() as patch:
        await send_with_a_broken_template(node, patch)
    issued.append(await send(node))
    node.clock.pass_s(WAITING_MS / 1000 + 1)
    assert not await node.accepts(PIN + drawn.codes[-1])
    await node.login()
    issued.append(await send(node))  # It waits to the end.
    await (await lane(node)).step()
    return [f"{each} {each!r}" for each in (*issued, *errors, got)]


async def send_with_a_broken_template(node: OneNode, patch: pytest.MonkeyPatch) -> None:
    """Send codes while the template's error quotes the link, and log the error."""
    broken = DictLoader(
        dict.fromkeys(("codes.txt", "codes.html"), "{{ {}[links[0]] }}")
    )
    environment = letters.environment()
    patch.setattr(
        code_letters, "environment", lambda: environment.overlay(loader=broken)
    )
    with pytest.raises(LetterUnwritableError) as raised:
        await send(node)
    logging.getLogger("a caller").error("failed", exc_info=raised.value)


async def everything_left(
    node: OneNode, folder: Path, records: Sequence[logging.LogRecord]
) -> dict[str, bytes]:
    """Return the Raft log, both states, a snapshot, the audit log and the log at DEBUG."""
    snapshot = folder / "snapshot"
    write_snapshot(folder / "local.db", snapshot)
    lines = [
        text
        for each in records
        if each.name != "mail.log"  # What the mail server logs.
        for text in (
            JsonFormatter("n1").format(each),
            TextFormatter("n1").format(each),
            repr(vars(each)),
        )
    ]
    left = {
        "Raft log": b"\n".join(node.replicator.entries),
        "state": node.primary_db.serialize(),
        "snapshot": snapshot.read_bytes(),
        "log": "\n".join(lines).encode(),
    }
    for form in ExportFormat:
        left[f"audit log as {form.name}"] = await exported(node, form)
    for each in folder.glob("*.db*"):  # noqa: ASYNC240 - quick.
        left[each.name] = each.read_bytes()
    return left


def found(secrets: Sequence[str | bytes], left: dict[str, bytes]) -> list[str]:
    """Return what is written down, and where."""
    return [
        f"{form!r} in {name}"
        for secret in secrets
        for form in set(forms(secret))
        for name, content in left.items()
        if form in content
    ]


async def test_no_code_key_or_pin_is_left_anywhere(
    node: OneNode,
    server: MailServer,
    drawn: Drawn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    (I9, I13, N3, T3) Not in the log at DEBUG, the Raft log, a snapshot or the audit log.

    Nor in what an administrator is shown. Mails have links, and no code or PIN; a mail
    that is no link to codes has none of these links, either.
    """
    with caplog.at_level(logging.DEBUG):
        shown = await drive(node, server, drawn, monkeypatch)
    left = await everything_left(node, tmp_path, caplog.records)
    left["answers"] = "\n".join(shown).encode()
    mails = {
        number: b"\n".join(
            [
                mail.as_bytes(),
                *(part.get_content().encode() for part in mail.iter_parts()),
            ]
        )
        for number, mail in enumerate(server.mails)
    }
    with_links = [
        each for each in mails.values() if b"/codes?" in each or b"/codes#" in each
    ]

    # The search sees what is there.
    assert (len(drawn.links), len(drawn.codes)) == (6, 18)
    assert len(with_links) == 4
    assert len(mails) > len(with_links)
    for name, action in (
        ("Raft log", b"answered 550 to RCPT"),
        ("state", b"CODES_NOT_OPENED"),
        ("snapshot", b"CODES_NOT_OPENED"),
        ("log", b"a sealed message failed"),
        ("audit log as JSON_LINES", b"OpenSealedCodes"),
    ):
        assert action in left[name], (name, sorted(left))
    with closing(sqlite3.connect(tmp_path / "snapshot")) as snapshot:
        (waits,) = snapshot.execute("SELECT ciphertext FROM sealed_codes").fetchone()
    assert waits in left["snapshot"]
    assert waits in left["Raft log"]
    assert found(
        [urlsafe_b64encode(drawn.links[0].secret).rstrip(b"=")], {"mail": with_links[0]}
    )

    secrets = drawn.secrets()
    assert found(secrets, left) == []
    told = [PIN, WRONG_PIN, *drawn.codes]
    assert found(told, {str(number): each for number, each in mails.items()}) == []
    others = [each for each in mails.values() if each not in with_links]
    assert found(secrets, {"another mail": b"\n".join(others)}) == []

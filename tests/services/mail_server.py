# SPDX-License-Identifier: Apache-2.0
"""A mail server (aiosmtpd) on this machine, with TLS and sign-in, that can misbehave."""

import asyncio
import contextlib
import datetime as dt
import email
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from aiosmtpd.smtp import LoginPassword as Words

from tests.services.receiver import AUTHORITY

LOGIN, PASSWORD = "sparecode", "mail-password-4b1f"


@dataclass(kw_only=True)
class MailServer:
    """Records what it takes; `answers` replaces its answers to some steps."""

    url: str = ""
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    clear: list[bool] = field(default_factory=list)
    """Of each mail: whether it came in clear text."""
    answers: dict[str, str] = field(default_factory=dict)
    """By RCPT and DATA; HANG: none."""
    sign_ins: int = 0
    connections: int = 0

    async def handle_RCPT(
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        answer = await self._answer("RCPT")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        answer = await self._answer("DATA")
        if answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.mails.append(
                email.message_from_bytes(envelope.content, policy=default)
            )
            self.recipients += envelope.rcpt_tos
            self.clear.append(session.ssl is None)
        return answer

    async def _answer(self, step: str) -> str:
        answer = self.answers.get(step, "250 OK")
        if answer == "HANG":
            await asyncio.Event().wait()
        return answer

    def sign_in(
        self, server: SMTP, session: Session, envelope: Envelope, how: str, words: Any
    ) -> AuthResult:
        self.sign_ins += 1
        right = Words(LOGIN.encode(), PASSWORD.encode())
        return AuthResult(success=words == right, handled=False)

    @property
    def subjects(self) -> list[str]:
        return [str(each["Subject"]) for each in self.mails]


@contextlib.asynccontextmanager
async def mail_server(
    folder: Path,
    *,
    scheme: str = "smtp+starttls",
    host: str = "127.0.0.1",
    offers_tls: bool = True,
) -> AsyncIterator[MailServer]:
    """Start a server whose certificate is for *host*, and which wants a sign-in."""
    issued = AUTHORITY.issue_member("mail", hosts=[host], now=dt.datetime.now(dt.UTC))
    (folder / "mail.pem").write_bytes(issued.certificate)
    (folder / "mail.key").write_bytes(issued.key)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "mail.pem", folder / "mail.key")
    this = MailServer()
    wants_tls = scheme == "smtp+starttls" and offers_tls
    protocols: list[SMTP] = []

    def protocol() -> SMTP:
        this.connections += 1
        made = SMTP(
            this,
            hostname="mail.test",
            enable_SMTPUTF8=True,
            tls_context=tls if wants_tls else None,
            require_starttls=wants_tls,
            auth_required=wants_tls,
            auth_require_tls=scheme == "smtp+starttls",
            authenticator=this.sign_in,
        )
        protocols.append(made)
        return made

    server = await asyncio.get_running_loop().create_server(
        protocol, "127.0.0.1", 0, ssl=tls if scheme == "smtps" else None
    )
    this.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield this
    finally:
        server.close()
        for each in protocols:
            task = each._handler_coroutine
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

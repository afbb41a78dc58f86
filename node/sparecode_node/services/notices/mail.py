# SPDX-License-Identifier: Apache-2.0
"""
Mail: one message for each notice to a person, by SMTP (N6).

TLS is verified, and there is no way back to clear text: only a channel whose address
names clear text uses it, without a password. The answers count as RFC 5321 says: 4yz
is temporary, 5yz permanent.
"""

import asyncio
import contextlib
import hashlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate
from typing import Final, Self

import aiosmtplib
from aiosmtplib import (
    SMTPConnectResponseError,
    SMTPException,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from sparecode_node.domain.notices import Channel
from sparecode_node.domain.personal_notices import PersonalNotice
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.services import fields
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.notices.addresses import (
    SMTP_PORTS,
    AddressError,
    parse_url,
    resolve,
)
from sparecode_node.services.notices.alarms import AlarmLinks
from sparecode_node.services.notices.letters import (
    Letter,
    LetterUnwritableError,
    guarded,
    write_letter,
)
from sparecode_node.services.notices.outcomes import Attempt, Exchange, Outcome
from sparecode_node.services.notices.webhook import (
    CAUSE_MAX,
    CONNECT_S,
    SHOWN_MAX,
    tls_settings,
)

log = logging.getLogger(__name__)

TOTAL_S = 30.0
"""For one message, with its connection, however slowly the server answers."""
COMMAND_S = 15.0
QUIT_S = 2.0
CONNECTIONS = 2
NAME: Final = "Sparecode"
"""The name that mails are from."""

CLOSING = 421
"""The server ends the connection: an answer to any command (RFC 5321, 3.8)."""
PERMANENT = range(500, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mail:
    """A message as it is sent."""

    recipient: str
    octets: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What became of one mail."""

    attempt: Attempt
    is_unknown: bool
    """The connection ended after the text was sent: the server may have taken it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSender:
    """Sends mails through one server, each over a connection of its own."""

    scheme: str
    host: str
    port: int
    allow_private: bool
    tls: ssl.SSLContext
    sender: str
    login: str
    password: str = field(repr=False)
    contact: str
    turns: asyncio.Semaphore
    alarm_links: AlarmLinks | None = None
    """Writes the links by which users raise an alarm; None: mails have none (N9)."""

    @classmethod
    async def open(
        cls, channel: Channel, password: str, alarm_links: AlarmLinks | None = None
    ) -> Self:
        """Prepare a sender. Raises `ssl.SSLError` and `ValueError` for bad settings."""
        try:
            parts = parse_url(channel.address, *SMTP_PORTS)
        except AddressError as error:
            raise ValueError(str(error)) from None
        return cls(
            scheme=parts.scheme,
            host=parts.hostname or "",
            port=parts.port or SMTP_PORTS[parts.scheme],
            allow_private=channel.allow_private,
            tls=await asyncio.to_thread(tls_settings, channel.authority),
            sender=channel.sender,
            login=channel.login,
            password=password,
            contact=channel.contact,
            turns=asyncio.Semaphore(CONNECTIONS),
            alarm_links=alarm_links,
        )

    async def close(self) -> None:
        """Do nothing: no connection outlives its mail."""

    async def send(self, notice: StoredNotice, now_ms: int) -> Attempt:
        """Send one notice; every failure is an `Attempt`, not an exception."""
        return (await self.exchange(notice, now_ms)).attempt

    async def exchange(self, notice: StoredNotice, now_ms: int) -> Exchange:
        """Send one notice, and return the dialog without the password."""
        del now_ms
        dialog = _Dialog()
        try:
            attempt = await self._attempt(self._mail(notice), dialog)
        except LetterUnwritableError as error:
            attempt = Attempt(Outcome.REJECTED, str(error))
        return Exchange(
            sent="\n".join(dialog.sent),
            received="\n".join(dialog.received)[:SHOWN_MAX],
            attempt=attempt,
        )

    def _mail(self, notice: StoredNotice) -> _Mail:
        """
        Write the message of a notice. Raises `LetterUnwritableError` for every failure.

        A bug with one message must not hold up the others of its channel.
        """
        personal = notice.personal
        if personal is None:
            raise LetterUnwritableError("the notice is for no person")
        try:
            # Of what people have typed, headers hold only the addresses. They are checked
            # again: the state may have some from before there was a check.
            fields.email(personal.recipient)
        except InvalidFieldError:
            raise LetterUnwritableError("the address on file is none") from None
        try:
            return guarded(personal.kind, lambda: self._message(notice, personal))
        except LetterUnwritableError as error:
            if not error.of_template:
                log.error(  # noqa: TRY400 - its places say enough.
                    "mail_unwritable",
                    extra={
                        "notice": notice.notice_id,
                        "cause": str(error),
                        "places": error.places,
                    },
                )
            raise

    def _message(self, notice: StoredNotice, personal: PersonalNotice) -> _Mail:
        """Write the message of a notice. May raise any error."""
        return self._written(
            write_letter(
                personal,
                notice.event,
                contact=self.contact,
                alarm_links=self.alarm_links.of(notice) if self.alarm_links else (),
            ),
            recipient=personal.recipient,
            at_ms=notice.event.at_ms,
            mail_id=message_id(notice.notice_id, personal, self.sender),
        )

    def _written(
        self, letter: Letter, *, recipient: str, at_ms: int, mail_id: str
    ) -> _Mail:
        message = EmailMessage(SMTP if _is_plain(recipient) else SMTPUTF8)
        message["From"] = Address(NAME, addr_spec=self.sender)
        message["To"] = _mailbox(recipient)
        message["Subject"] = letter.subject
        message["Date"] = formatdate(at_ms / 1000)
        message["Message-ID"] = mail_id
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(letter.text, cte="quoted-printable")
        message.add_alternative(letter.html, subtype="html", cte="quoted-printable")
        (mailbox,) = message["To"].addresses
        return _Mail(recipient=mailbox.addr_spec, octets=message.as_bytes())

    async def deliver(
        self, write: Callable[[], Letter], *, recipient: str, at_ms: int, mail_id: str
    ) -> Delivered:
        """
        Send a letter that no notice stands for, once. Nothing of its text is returned.

        *mail_id*: its number, of which the Message-ID is made. Raises
        `LetterUnwritableError`.
        """
        fields.email(recipient)
        mail = guarded(
            mail_id,
            lambda: self._written(
                write(),
                recipient=recipient,
                at_ms=at_ms,
                mail_id=f"<{mail_id}@{self.sender.rpartition('@')[2]}>",
            ),
        )
        dialog = _Dialog()
        attempt = await self._attempt(mail, dialog)
        is_unknown = attempt.outcome is Outcome.UNREACHABLE and dialog.step == "DATA"
        return Delivered(attempt=attempt, is_unknown=is_unknown)

    async def _attempt(self, mail: _Mail, dialog: "_Dialog") -> Attempt:
        try:
            async with self.turns, asyncio.timeout(TOTAL_S):
                return await self._converse(mail, dialog)
        except AddressError as error:
            return Attempt(Outcome.UNREACHABLE, str(error))
        except (TimeoutError, SMTPTimeoutError):
            cause = f"no answer to {dialog.step} in time"
            return Attempt(Outcome.UNREACHABLE, cause)
        except (SMTPResponseException, SMTPConnectResponseError) as error:
            return _judged(error.code, dialog)
        except SMTPServerDisconnected:
            cause = f"the server has closed the connection after {dialog.step}"
            return Attempt(Outcome.UNREACHABLE, cause)
        except SMTPException as error:
            words = error.__cause__ or error
            return Attempt(Outcome.UNREACHABLE, _line(f"{dialog.step}: {words}"))
        except OSError as error:
            return Attempt(Outcome.UNREACHABLE, _line(f"cannot connect: {error}"))

    async def _converse(self, mail: _Mail, dialog: "_Dialog") -> Attempt:
        recipient = mail.recipient
        async with self._connected(dialog) as client:
            if self.scheme == "smtp+starttls":
                dialog.say("STARTTLS")
                dialog.hear(await client.starttls(server_hostname=self.host))
                await _greet(client, dialog)
            if self.login:
                dialog.say("AUTH", shown="AUTH (name and password are not shown)")
                answer = await client.login(self.login, self.password)
                # A server could repeat what it was told, so its words are left out.
                dialog.received.append(str(answer.code))
            plain = _is_plain(recipient)
            if not plain and not client.supports_extension("smtputf8"):
                return Attempt(
                    Outcome.REJECTED, "the server takes only addresses in ASCII"
                )
            options = [] if plain else ["SMTPUTF8"]
            encoding = "ascii" if plain else "utf-8"
            dialog.say("MAIL", shown=f"MAIL FROM:<{self.sender}>")
            dialog.hear(
                await client.mail(self.sender, options=options, encoding=encoding)
            )
            dialog.say("RCPT", shown=f"RCPT TO:<{recipient}>")
            dialog.hear(await client.rcpt(recipient, encoding=encoding))
            dialog.say("DATA")
            dialog.sent += [*mail.octets.decode().splitlines(), "."]
            dialog.hear(await client.data(mail.octets))
            # The server has taken it, whatever becomes of the connection.
            with contextlib.suppress(SMTPException, OSError):
                await client.quit(timeout=QUIT_S)
        return Attempt(Outcome.DELIVERED, "")

    @contextlib.asynccontextmanager
    async def _connected(self, dialog: "_Dialog") -> AsyncIterator[aiosmtplib.SMTP]:
        """Connect to a checked address, and greet. What was sent before is in clear."""
        dialog.step = "the connection"
        connection = await _connection(
            self.host, self.port, allow_private=self.allow_private
        )
        client = aiosmtplib.SMTP(
            hostname=self.host,
            sock=connection,
            use_tls=self.scheme == "smtps",
            start_tls=False,
            tls_context=self.tls,
            timeout=COMMAND_S,
            # Not the machine's own name, which would have to be looked up.
            local_hostname=_literal(connection),
        )
        try:
            dialog.hear(await client.connect())
            await _greet(client, dialog)
            yield client
        finally:
            client.close()  # With the connection, which is its transport's.


@dataclass(slots=True)
class _Dialog:
    """What was sent and received, for a person to read, and the step that it is at."""

    sent: list[str] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    step: str = "the connection"

    def say(self, step: str, *, shown: str = "") -> None:
        """Record what is sent next."""
        self.step = step
        self.sent.append(shown or step)

    def hear(self, answer: aiosmtplib.SMTPResponse) -> None:
        """Record an answer."""
        words = "".join(each if each.isprintable() else " " for each in answer.message)
        self.received.append(f"{answer.code} {words}")


async def _greet(client: aiosmtplib.SMTP, dialog: _Dialog) -> None:
    dialog.say("EHLO", shown=f"EHLO {client.local_hostname}")
    dialog.hear(await client.ehlo())


def _judged(code: int, dialog: _Dialog) -> Attempt:
    """
    Return what an answer means, by the step that it answers.

    Before the recipient is named, it is about the server or the channel's settings, and
    other mails would fail, too.
    """
    dialog.received.append(str(code))
    cause = f"answered {code} to {dialog.step}"
    if code == CLOSING or dialog.step not in ("RCPT", "DATA"):
        return Attempt(Outcome.UNREACHABLE, cause)
    permanent = code in PERMANENT
    return Attempt(Outcome.REJECTED if permanent else Outcome.REFUSED, cause)


async def _connection(host: str, port: int, *, allow_private: bool) -> socket.socket:
    """Connect to the first checked address that answers. Raises `AddressError`."""
    loop = asyncio.get_running_loop()
    failure: OSError = ConnectionError(f"{host} has no address")
    for address in await resolve(host, port, allow_private=allow_private):
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)  # noqa: FBT003
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(connection, (str(address), port))
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


def _literal(connection: socket.socket) -> str:
    """Return the own address as EHLO names it (RFC 5321, 4.1.3)."""
    address = str(connection.getsockname()[0]).partition("%")[0]
    return (
        f"[{address}]" if connection.family == socket.AF_INET else f"[IPv6:{address}]"
    )


def message_id(notice_id: str, personal: PersonalNotice, sender: str) -> str:
    """Return the id of a message: the same at every delivery, and of no other message."""
    which = f"{personal.kind} {personal.recipient}"
    mark = hashlib.sha256(which.encode()).hexdigest()[:16]
    return f"<{notice_id}.{mark}@{sender.rpartition('@')[2]}>"


def _mailbox(address: str) -> Address:
    """Return an address for a header. The parser of `addr_spec` knows only ASCII."""
    if _is_plain(address):
        return Address(addr_spec=address)
    name, _, domain = address.rpartition("@")
    return Address(username=name, domain=domain)


def _is_plain(address: str) -> bool:
    return address.isascii()


def _line(words: str) -> str:
    """Return the first line of an error, without characters that move a terminal."""
    first = words.partition("\n")[0][:CAUSE_MAX]
    return "".join(each if each.isprintable() else "?" for each in first)

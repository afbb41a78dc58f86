# SPDX-License-Identifier: Apache-2.0
"""What channels of every kind tell, for the test that looks for secrets in it (N3)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

from local_cluster.cluster import LocalCluster

from sparecode_client.values.notices import ChannelKind, EventClass, new_webhook_secret
from tests.services.mail_server import LOGIN, PASSWORD, MailServer, mail_server
from tests.services.receiver import AUTHORITY, Receiver, receiver
from tests.services.test_streams import Collector
from tests.system.estate import PATIENCE, Estate

FOLDER = "events"
FILE = "told"


def serve_files(cluster: LocalCluster) -> None:
    """Let each node write its events into its data folder. Before they start."""
    for node in cluster.nodes:
        folder = node.directory / "data" / FOLDER
        folder.mkdir(parents=True)
        text = node.config.read_text()
        setting = f'[node]\nevent_folder = "{folder}"\n'
        node.config.write_text(text.replace("[node]\n", setting, 1))


@dataclass(kw_only=True)
class Told:
    """The receivers of all channels, and the secrets with which they are used."""

    hook: Receiver
    mails: MailServer
    collector: Collector
    secrets: list[str] = field(default_factory=list)

    def messages(self) -> dict[str, bytes]:
        """Return everything that has arrived, as sent and decoded."""
        requests = [
            "\n".join(f"{name}: {value}" for name, value in headers.items()).encode()
            + body
            for headers, body in self.hook.requests
        ]
        mails = [part for mail in self.mails.mails for part in _parts(mail)]
        return {
            "requests to a webhook": b"\n".join(requests),
            "mails": b"\n".join(mails),
            "messages by syslog": "\n".join(self.collector.messages).encode(),
        }


def _parts(mail: EmailMessage) -> list[bytes]:
    texts = [part.get_content() for part in mail.walk() if not part.is_multipart()]
    return [mail.as_bytes(), *(str(text).encode() for text in texts)]


@contextlib.asynccontextmanager
async def telling(estate: Estate, folder: Path) -> AsyncIterator[Told]:
    """
    Tell every event to a webhook, by syslog and in files, and users by mail.

    *folder* gets the certificates of the receivers.
    """
    collector = Collector(folder=folder)
    await collector.start()
    async with receiver(folder) as hook, mail_server(folder) as mails:
        secret = new_webhook_secret()
        secrets = [secret, secret.removeprefix("whsec_"), PASSWORD]
        told = Told(hook=hook, mails=mails, collector=collector, secrets=secrets)
        trusted = AUTHORITY.pem.decode()
        create = estate.admin.create_channel
        await create(FILE, kind=ChannelKind.FILE)
        await create(
            "hook",
            hook.url,
            classes=tuple(EventClass),
            secret=secret,
            allow_private=True,
            authority=trusted,
        )
        await create(
            "syslog",
            collector.url,
            kind=ChannelKind.SYSLOG,
            allow_private=True,
            authority=trusted,
        )
        await create(
            "mail",
            mails.url,
            kind=ChannelKind.MAIL,
            secret=PASSWORD,
            login=LOGIN,
            sender="noreply@example.com",
            contact="Call 4711.",
            allow_private=True,
            authority=trusted,
        )
        try:
            yield told
        finally:
            await collector.stop()


async def all_told(estate: Estate, told: Told) -> None:
    """Return once nothing waits, and the streams have what the audit log has."""
    newest = (await estate.admin.list_audit_events(page_size=1)).items[0].sequence
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not any(  # noqa: ASYNC110 - no event tells it.
            f'sequenceId="{newest}"' in each for each in told.collector.messages
        ):
            await asyncio.sleep(0.2)
        while any(  # noqa: ASYNC110
            each.waiting_count for each in (await estate.admin.list_channels()).items
        ):
            await asyncio.sleep(0.2)

# SPDX-License-Identifier: Apache-2.0
"""Backups: the last one, and a new one to download."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sparecode_node.console.kit.changes import attempt
from sparecode_node.console.kit.rendering import utc
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.cluster import status_of
from sparecode_node.services.cluster.backups import BackupPiece
from sparecode_node.services.context import CallContext

log = logging.getLogger(__name__)

CREATE: Final = "ClusterService/CreateBackup"
DOWNLOAD_S: Final = 15 * 60.0
"""Longest download. A browser that stops reading blocks the next backup."""


async def take(visit: Visit) -> Response:
    """Show the last backup; return a new one."""
    if visit.is_form:
        visit.require(CREATE)
        pieces = await attempt(visit, CREATE, lambda call: _begin(visit, call))
        if pieces is not None:
            return Download(*pieces)
    recipients: list[str] | None = None
    if visit.may("PolicyService/GetPolicy"):
        policy = await visit.read(
            "PolicyService/GetPolicy",
            lambda call, stale_ok: visit.site.services.policies.get(
                call, stale_ok=stale_ok
            ),
        )
        recipients = policy.backup_recipients.split()
    status = await status_of(visit)
    return visit.page("backups.html", last=status.last_backup, recipients=recipients)


async def _begin(
    visit: Visit, call: CallContext
) -> tuple[BackupPiece, AsyncGenerator[BackupPiece, None]]:
    """Return the first piece and the rest; refusals come before the first piece."""
    pieces = await visit.site.services.backups.create(call)
    return await anext(pieces), pieces


class Download(StreamingResponse):
    """A backup, piece by piece; an aborted one is incomplete and not recorded."""

    def __init__(
        self, first: BackupPiece, rest: AsyncGenerator[BackupPiece, None]
    ) -> None:
        self._rest = rest
        name = f"{utc(first.signed.manifest.taken_at_ms):%Y-%m-%dT%H%M%SZ}.backup"
        super().__init__(
            self._contents(first),
            media_type="application/octet-stream",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def _contents(self, first: BackupPiece) -> AsyncGenerator[bytes, None]:
        yield first.content
        async for piece in self._rest:
            yield piece.content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with aclosing(self._rest):
            try:
                async with asyncio.timeout(DOWNLOAD_S):
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                log.warning("backup_not_taken", extra={"within_s": DOWNLOAD_S})

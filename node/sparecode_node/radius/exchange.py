# SPDX-License-Identifier: Apache-2.0
"""
From a request to its answer, over UDP and TLS alike: bounds, duplicates and counters.

A packet that gets no answer costs its sender a timeout, and then it asks another node.
So the node stays silent whenever it cannot decide (A7), and Status-Server gets an
answer only while it could.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from sparecode_node.radius import packets
from sparecode_node.radius.answers import ALIVE, Answer
from sparecode_node.radius.dialog import Dialog
from sparecode_node.radius.duplicates import Duplicates
from sparecode_node.radius.packets import DroppedError, Request
from sparecode_node.radius.request_ids import RequestIds, Source
from sparecode_node.replication.errors import (
    OverloadedError,
    ProposeError,
    RemovedError,
)
from sparecode_node.services.access.packet_counts import PacketCounts
from sparecode_node.services.access.security_log import PACKET_DROPPED, SecurityLog
from sparecode_node.services.ambient import Clock
from sparecode_node.services.errors import (
    CertificateDeniedError,
    RateError,
    Refused,
    ServiceError,
)

log = logging.getLogger(__name__)

IN_PROGRESS_MAX = 1024
IN_PROGRESS_OF_CLIENT_MAX = 256
NEW_SHARE = 0.75
"""New dialogs get this share of both; the rest is for answers (RFC 5080, 2.2.3)."""


class Peer(Protocol):
    """Where a request came from, and its answer goes to."""

    def send(self, datagram: bytes) -> None:
        """Send an answer; do nothing if the way is closed."""
        ...

    def deny(self) -> None:
        """Act on a denied certificate. UDP has none."""
        ...


class Exchange:
    """Answers the requests of all listeners."""

    def __init__(
        self,
        *,
        dialog: Dialog,
        counts: PacketCounts,
        is_ready: Callable[[], bool],
        check_open: Callable[[], None],
        security_log: SecurityLog,
        clock: Clock,
    ) -> None:
        self.is_open = False
        """Whether the cluster serves agents (E2), as far as the listeners know."""
        self._dialog = dialog
        self._counts = counts
        self._is_ready = is_ready
        self._check_open = check_open
        self._security_log = security_log
        self._clock = clock
        self._leaving = False
        self._duplicates = Duplicates(clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_progress: dict[str, int] = {}

    def leave(self) -> None:
        """Answer no new packet, because the node is about to stop."""
        self._leaving = True

    async def finish(self, grace_s: float) -> None:
        """
        Wait until all requests in progress are answered.

        Without the grace a client would not learn of a decision that is committed, and
        the next node would refuse the passcode that it spent.
        """
        self.leave()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)

    async def stop(self) -> None:
        """Give up the requests that are still in progress."""
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def dropped(self, name: str, verdict: str, host: str) -> None:
        """Count a packet without an answer, and log why."""
        self._count(name, verdict)
        if verdict not in ("duplicate", "overloaded", "unavailable"):
            agent = {"agent": name} if name else {}
            self._security_log.note(PACKET_DROPPED, peer=host, **agent, cause=verdict)

    def serve(
        self, source: Source, request: Request, peer: Peer
    ) -> asyncio.Task[None] | None:
        """
        Answer a request again, or begin to decide it.

        Return the task that answers it; None: it is answered. Raises `DroppedError`.
        """
        client = source.client
        if self._leaving:
            raise DroppedError("unavailable")
        if request.is_status:
            self._check_able(source, request)
            peer.send(packets.reply(request, ALIVE.code, ()))
            self._count(client.name, ALIVE.verdict)
            return None
        request_ids = self._dialog.ids_of(source, request)
        answer = self._duplicates.answer(request_ids.first)
        if answer is not None:
            peer.send(packets.reply(request, answer.code, answer.attributes))
            self._count(client.name, "duplicate")
            return None
        self._check_room(source, request)
        if not self._duplicates.begin(request_ids.first):
            raise DroppedError("duplicate")
        key = client.identity
        self._in_progress[key] = self._in_progress.get(key, 0) + 1
        task = asyncio.create_task(self._answer(source, request, request_ids, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _check_able(self, source: Source, request: Request) -> None:
        """Raise `DroppedError` if a request would get no answer now (D4)."""
        if not self.is_open or not self._is_ready():
            raise DroppedError("unavailable")
        try:
            self._check_open()
            self._dialog.check_room(source, request)
        except RemovedError:
            raise DroppedError("unavailable") from None
        except OverloadedError:
            raise DroppedError("overloaded") from None
        self._check_room(source, request)

    def _check_room(self, source: Source, request: Request) -> None:
        """Raise `DroppedError` if too many requests are in progress."""
        share = 1.0 if request.has(packets.STATE) else NEW_SHARE
        if (
            len(self._tasks) >= IN_PROGRESS_MAX * share
            or self._in_progress.get(source.client.identity, 0)
            >= IN_PROGRESS_OF_CLIENT_MAX * share
        ):
            raise DroppedError("overloaded")

    async def _answer(
        self, source: Source, request: Request, request_ids: RequestIds, peer: Peer
    ) -> None:
        answer, verdict = None, "unavailable"
        try:
            self._check_open()
            answer = await self._dialog.answer(source, request, request_ids)
            datagram = packets.reply(request, answer.code, answer.attributes)
            verdict = answer.verdict
            peer.send(datagram)
        except RateError:
            verdict = "rate_limited"
        except OverloadedError:
            verdict = "overloaded"
        except CertificateDeniedError:
            verdict = "denied"
            peer.deny()
        except (ProposeError, RemovedError, Refused, ServiceError) as error:
            log.debug("radius_silent", extra={"cause": type(error).__name__})
        except Exception:
            # A bug: the packet gets no answer, and the node goes on.
            log.exception("radius_failed")
        finally:
            self._end(source, request_ids, answer)
            self._count(source.client.name, verdict)

    def _end(
        self, source: Source, request_ids: RequestIds, answer: Answer | None
    ) -> None:
        self._duplicates.end(request_ids.first, answer)
        key = source.client.identity
        self._in_progress[key] -= 1
        if not self._in_progress[key]:
            del self._in_progress[key]

    def _count(self, name: str, verdict: str) -> None:
        self._counts.count(name, verdict, self._clock.now_ms())

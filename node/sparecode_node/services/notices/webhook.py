# SPDX-License-Identifier: Apache-2.0
"""
Webhooks: one HTTPS request for each notice.

The body is a CloudEvent (CloudEvents 1.0, JSON), and the headers are those of Standard
Webhooks. No redirect is followed, and of the answer only the status counts.
"""

import asyncio
import datetime as dt
import json
import ssl
from dataclasses import dataclass, field
from typing import Self

import httpcore
from standardwebhooks import Webhook

from sparecode_node.domain.notices import Channel
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.services.notices.addresses import AddressError, CheckedBackend
from sparecode_node.services.notices.outcomes import Attempt, Exchange, Outcome

TOTAL_S = 15.0
"""For one request with its whole answer, however slowly it arrives."""
CONNECT_S = 5.0
ANSWER_BYTES_MAX = 64 * 1024
"""A longer answer is cut: only the status counts."""
SHOWN_MAX = 1000
"""Bytes of an answer that a test of the channel shows."""
CONNECTIONS = 8
CAUSE_MAX = 160
"""Characters of a cause, which becomes a detail in the audit log."""
IDLE_S = 5.0
"""An unused connection is closed after this: its address may be another one later."""

_SUCCESS = range(200, 300)
_GONE = 410
_BUSY = frozenset({408, 425, 429, 502, 503, 504})
"""Answers about the receiver's load, not about this notice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSender:
    """Sends notices to one webhook."""

    address: str
    signer: Webhook = field(repr=False)
    cluster_id: str
    pool: httpcore.AsyncConnectionPool

    @classmethod
    async def open(cls, channel: Channel, secret: str, cluster_id: str) -> Self:
        """Prepare a sender. Raises `ssl.SSLError` and `ValueError` for bad settings."""
        context = await asyncio.to_thread(tls_settings, channel.authority)
        return cls(
            address=channel.address,
            signer=Webhook(secret),
            cluster_id=cluster_id,
            pool=httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=CONNECTIONS,
                max_keepalive_connections=CONNECTIONS,
                keepalive_expiry=IDLE_S,
                http1=True,
                http2=False,
                retries=0,
                network_backend=CheckedBackend(allow_private=channel.allow_private),
            ),
        )

    async def close(self) -> None:
        """Close its connections."""
        await self.pool.aclose()

    async def send(self, notice: StoredNotice, now_ms: int) -> Attempt:
        """Send one notice; every failure is an `Attempt`, not an exception."""
        return (await self.exchange(notice, now_ms)).attempt

    async def exchange(self, notice: StoredNotice, now_ms: int) -> Exchange:
        """Send one notice, and return what was sent and received."""
        body = cloud_event(notice, self.cluster_id)
        now = dt.datetime.fromtimestamp(now_ms // 1000, tz=dt.UTC)
        headers: dict[str | bytes, str | bytes] = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "User-Agent": "Sparecode",
            "webhook-id": notice.notice_id,
            "webhook-timestamp": str(now_ms // 1000),
            "webhook-signature": self.signer.sign(notice.notice_id, now, body),
        }
        received: list[bytes] = []
        attempt = await self._attempt(body, headers, received)
        return Exchange(
            sent="\n".join(
                [
                    f"POST {self.address}",
                    *(f"{name!s}: {value!s}" for name, value in headers.items()),
                    "",
                    body,
                ]
            ),
            received=_shown(b"".join(received)),
            attempt=attempt,
        )

    async def _attempt(
        self,
        body: str,
        headers: dict[str | bytes, str | bytes],
        received: list[bytes],
    ) -> Attempt:
        """Send a request, and append what is to be shown of the answer to *received*."""
        try:
            async with (
                asyncio.timeout(TOTAL_S),
                self.pool.stream(
                    "POST",
                    self.address,
                    headers=headers,
                    content=body.encode(),
                    extensions={"timeout": {"connect": CONNECT_S}},
                ) as response,
            ):
                received.append(f"HTTP {response.status}\n\n".encode())
                size = 0
                async for piece in response.aiter_stream():
                    if size < SHOWN_MAX:
                        received.append(piece[:SHOWN_MAX])
                    size += len(piece)
                    if size > ANSWER_BYTES_MAX:
                        break
                return _judged(response.status)
        except AddressError as error:
            return Attempt(Outcome.UNREACHABLE, str(error))
        except TimeoutError:
            return Attempt(
                Outcome.UNREACHABLE, f"no complete answer within {TOTAL_S:g} s"
            )
        except (httpcore.NetworkError, httpcore.TimeoutException, OSError) as error:
            return Attempt(Outcome.UNREACHABLE, f"cannot connect: {_cause(error)}")
        except (httpcore.ProtocolError, ValueError) as error:
            return Attempt(Outcome.REFUSED, f"no HTTP answer: {_cause(error)}")


def _judged(status: int) -> Attempt:
    if status in _SUCCESS:
        return Attempt(Outcome.DELIVERED, "")
    if status == _GONE:
        return Attempt(Outcome.GONE, "answered 410")
    outcome = Outcome.UNREACHABLE if status in _BUSY else Outcome.REFUSED
    return Attempt(outcome, f"answered {status}")


def _cause(error: Exception) -> str:
    """Return the error in words, without bytes of the receiver's answer beyond a line."""
    words = str(error).partition("\n")[0][:CAUSE_MAX]
    return "".join(each if each.isprintable() else "?" for each in words) or (
        type(error).__name__
    )


def _shown(received: bytes) -> str:
    """Return the beginning of an answer, without characters that move a terminal."""
    text = received[:SHOWN_MAX].decode(errors="replace").replace("\r\n", "\n")
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in text)


def tls_settings(authority: str) -> ssl.SSLContext:
    """Return the settings of TLS, which verify certificate and name."""
    return ssl.create_default_context(cadata=authority or None)


def cloud_event(notice: StoredNotice, cluster_id: str) -> str:
    """Return the body: a CloudEvent with the notice's id and the audit event."""
    event = notice.event
    at = dt.datetime.fromtimestamp(event.at_ms / 1000, tz=dt.UTC)
    content = {
        "specversion": "1.0",
        "id": notice.notice_id,
        "source": f"urn:sparecode:{cluster_id}",
        "type": f"sparecode.{notice.event_class}.{event.action}",
        "subject": event.target or "cluster",
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "sequence": f"{event.sequence:020d}",
        "data": {
            "sequence": event.sequence,
            "actor": event.actor,
            "node": event.node,
            "action": event.action,
            "target": event.target,
            "outcome": event.outcome,
            "reason": event.reason,
            "detail": event.detail,
        },
    }
    return json.dumps(content, ensure_ascii=True, separators=(",", ":"))

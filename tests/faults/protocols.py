# SPDX-License-Identifier: Apache-2.0
"""
RADIUS and HTTP in a campaign, beside gRPC.

A RADIUS client sends the same packet again until it is answered, to the same node or
to the next. A retry by HTTP has the same key, which is the request id of gRPC: a
request that was begun by one of these two may be retried by the other.
"""

import asyncio
import contextlib
import hashlib
import ssl
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Self

import httpx
from local_cluster.cluster import AGENT, LocalCluster, LocalNode
from pyrad.packet import AccessAccept, AuthPacket

from sparecode_client import AsyncAdmin, RadiusSettings
from tests.radius.door import connected, request

HTTP_PORT, RADIUS_PORT = 7305, 1812
NETWORK = "10.199.0.0/24"
"""Of the nodes and of this machine, see `network`."""
RADIUS_SHARE = 4
"""The fourth part of the requests goes by RADIUS."""
REMEMBERED = 16
"""Requests from one port to one node: a reply is later than none of them."""
REPEAT_S = 0.8
TOO_FAST = "Too many tries"
UNDECIDED = frozenset({500, 504})
"""Statuses after which a decision may have been made, besides `OUTCOME_UNKNOWN`."""
REPLY_MESSAGE = 18


class NoAnswerError(Exception):
    """A call without a decision, and whether one may have been made."""

    def __init__(self, words: str, *, unknown: bool) -> None:
        super().__init__(words)
        self.words = words
        self.unknown = unknown


def serve(node: LocalNode, cluster: LocalCluster) -> None:
    """Give a node both listeners. Before it starts."""
    host = _host(node)
    ours = cluster.certificates / node.node_id
    node.config.write_text(
        node.config.read_text()
        + f'\n[radius]\nlisten = ["{host}:{RADIUS_PORT}"]\n'
        + f'\n[http]\nlisten = "{host}:{HTTP_PORT}"\n'
        + f'certificate = "{ours}.pem"\nkey = "{ours}.key"\n'
    )


def goes_by_radius(request_id: str) -> bool:
    """Return whether a request is one of RADIUS: then its retries are, too."""
    return uuid.UUID(request_id).int % RADIUS_SHARE == 0


class Protocols:
    """Agents by HTTP and RADIUS, as an async context manager."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._hosts: Mapping[str, str] = {
            node.directory.name: _host(node) for node in cluster.nodes
        }
        tls = ssl.create_default_context(cafile=cluster.members_ca)
        certificate = cluster.certificates / AGENT
        tls.load_cert_chain(f"{certificate}.pem", f"{certificate}.key")
        self._http = httpx.AsyncClient(
            verify=tls, trust_env=False, limits=httpx.Limits(max_connections=None)
        )
        self._open = AsyncExitStack()
        self._secret = ""
        self._sent: Mapping[tuple[str, int], deque[bytes]] = defaultdict(
            lambda: deque(maxlen=REMEMBERED)
        )

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._http)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def register(self, admin: AsyncAdmin, *, within: timedelta) -> None:
        """Register this machine as a RADIUS client."""
        new = await admin.register_radius_client(
            "nas", RadiusSettings(networks=(NETWORK,)), within=within
        )
        self._secret = new.secret

    def order(self, node: str, turn: int) -> Sequence[str]:
        """Return the hosts to try: of one node, or of all from the *turn*-th on."""
        if node in self._hosts:
            return [self._hosts[node]]
        hosts = [*self._hosts.values()]
        first = turn % len(hosts)
        return hosts[first:] + hosts[:first]

    async def by_http(
        self,
        username: str,
        passcode: str,
        *,
        request_id: str,
        hosts: Sequence[str],
        within: timedelta,
    ) -> bool:
        """Return whether a passcode is accepted. Raises `NoAnswerError`."""
        until = time.monotonic() + within.total_seconds()
        unknown, words = False, "HTTP: no node"
        for host in hosts:
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            try:
                async with asyncio.timeout(left_s):
                    response = await self._http.post(
                        f"https://{host}:{HTTP_PORT}/v1/authenticate",
                        json={"username": username, "passcode": passcode},
                        headers={"idempotency-key": request_id},
                        timeout=httpx.Timeout(None, connect=1.0),
                    )
            except (httpx.ConnectError, httpx.ConnectTimeout):
                words = "HTTP: no connection"
                continue
            except (httpx.HTTPError, TimeoutError):
                unknown, words = True, "HTTP: no answer"
                continue
            body = response.json()
            if response.status_code == httpx.codes.OK:
                return bool(body["decision"] == "ACCEPTED")
            words = f"HTTP: {body['reason']}"
            if response.status_code in UNDECIDED or body["reason"] == "OUTCOME_UNKNOWN":
                unknown = True
        raise NoAnswerError(words, unknown=unknown)

    async def by_radius(
        self,
        username: str,
        passcode: str,
        *,
        request_id: str,
        hosts: Sequence[str],
        within: timedelta,
    ) -> bool:
        """
        Return whether a passcode is accepted. Raises `NoAnswerError`.

        The packet follows from the request id. Silence says nothing about a decision.
        """
        drawn = hashlib.sha256(request_id.encode()).digest()
        sent = request(
            self._secret,
            username,
            passcode,
            identifier=drawn[-1],
            authenticator=drawn[:16],
        )
        until = time.monotonic() + within.total_seconds()
        turn = 0
        while (left_s := until - time.monotonic()) > 0:
            host = hosts[turn % len(hosts)]
            answer = await self._ask(host, sent, min(REPEAT_S, left_s))
            turn += 1
            if answer is None:
                continue
            words = b" ".join(answer.get(REPLY_MESSAGE, [])).decode()
            if words.startswith(TOO_FAST):
                raise NoAnswerError("RADIUS: rate", unknown=turn > 1)
            return bool(answer.code == AccessAccept)
        raise NoAnswerError("RADIUS: silence", unknown=True)

    async def _ask(self, host: str, sent: bytes, wait_s: float) -> AuthPacket | None:
        """Send a packet from a socket of its own; return its reply. Silence: None."""
        until = time.monotonic() + wait_s
        with contextlib.suppress(OSError):  # Its network is down: the packet is lost.
            client = await connected(RADIUS_PORT, host)
            port = client.transport.get_extra_info("sockname")[1]
            earlier = self._sent[host, port]
            try:
                client.transport.sendto(sent)
                while reply := await client.reply(max(0, until - time.monotonic())):
                    if answer := self._answer(reply, to=sent):
                        return answer
                    self._check_is_late(reply, earlier)
                return None
            finally:
                client.transport.close()
                earlier.append(sent)
        await asyncio.sleep(wait_s)
        return None

    def _answer(self, reply: bytes, *, to: bytes) -> AuthPacket | None:
        """Return a reply that is signed for a request; None: it is for another."""
        asked = AuthPacket(packet=to, secret=self._secret.encode())
        answer = AuthPacket(packet=reply, secret=self._secret.encode())
        if reply[1] == to[1] and asked.VerifyReply(answer, reply, enforce_ma=True):
            return answer
        return None

    def _check_is_late(self, reply: bytes, earlier: Iterable[bytes]) -> None:
        """
        Check that a reply answers a request that had this port before.

        The system gives the port of a closed socket to another one, so a late reply
        arrives there; a client drops it silently (RFC 2865, section 4.2). A reply that
        is signed for no request would be a fault of the node.
        """
        if not any(self._answer(reply, to=request) for request in earlier):
            raise ValueError("a reply is signed for no request")


def _host(node: LocalNode) -> str:
    return node.agents_address.rpartition(":")[0]

# SPDX-License-Identifier: Apache-2.0
"""
The agent that calls: its certificate names it, as over gRPC, or else its bearer key.

A plug-in of privacyIDEA that shows neither may be known by its address.
"""

import datetime as dt
from dataclasses import dataclass

from starlette.requests import Request

from sparecode_node.domain.caller_addresses import canonical
from sparecode_node.http.plugins import Plugins
from sparecode_node.services.access.agent_certificates import read_certificate
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import AgentCaller
from sparecode_node.services.errors import NoCredentialsError, UnidentifiedError
from sparecode_node.services.people.agent_keys import AgentKeys
from sparecode_node.web.server import certificate_of

SCHEME = "bearer"
FROM_PAGES = frozenset({"origin", "sec-fetch-site"})
"""
Headers that browsers add to a request of a page.

Any page can make a browser send one, from a listed network or with the certificate of
an agent that a person has imported, and no plug-in sends them. Only a bearer key shows
that the request is not from a page: a page may not send it.
"""


def address_of(request: Request) -> str:
    """Return the address of the connection, without its port, as at every door."""
    return canonical(request.client.host) if request.client else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Finds the agent of a call. A caller with a certificate needs no key."""

    keys: AgentKeys
    plugins: Plugins
    clock: Clock

    async def of(self, request: Request, *, as_plugin: bool = False) -> AgentCaller:
        """
        Return the agent. *as_plugin*: its address may be enough.

        Raises `NoCredentialsError`, `UnidentifiedError` and `RateError`.
        """
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        has_key = scheme.lower() == SCHEME
        is_from_page = not FROM_PAGES.isdisjoint(request.headers.keys())
        if as_plugin and is_from_page and not has_key:
            raise NoCredentialsError
        der = certificate_of(request.state)
        if der:
            return self._named_by(der)
        if not has_key:
            if not as_plugin:
                raise NoCredentialsError
            identity = self.plugins.by_network.find(address_of(request))
            if identity is None:
                raise NoCredentialsError
            return AgentCaller(identity=identity)
        return await self.keys.caller(key.strip(), address_of(request))

    def _named_by(self, der: bytes) -> AgentCaller:
        certificate = read_certificate(der)
        now = dt.datetime.fromtimestamp(self.clock.now_ms() / 1000, dt.UTC)
        if certificate.ends_at <= now:  # Since the handshake.
            raise UnidentifiedError
        return AgentCaller(identity=certificate.identity, certificate=certificate.marks)

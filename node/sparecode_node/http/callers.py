# SPDX-License-Identifier: Apache-2.0
"""The agent that calls: its certificate names it, as over gRPC."""

import datetime as dt

from starlette.requests import Request

from sparecode_node.services.access.agent_certificates import read_certificate
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import AgentCaller
from sparecode_node.services.error_table import NoCredentialsError, UnidentifiedError
from sparecode_node.web.server import certificate_of


def address_of(request: Request) -> str:
    """Return the address of the connection, without its port."""
    return request.client.host if request.client else ""


def caller_of(request: Request, clock: Clock) -> AgentCaller:
    """Return the agent. Raises `NoCredentialsError`, `UnidentifiedError`."""
    der = certificate_of(request.state)
    if not der:
        raise NoCredentialsError
    certificate = read_certificate(der)
    now = dt.datetime.fromtimestamp(clock.now_ms() / 1000, dt.UTC)
    if certificate.ends_at <= now:  # Since the handshake.
        raise UnidentifiedError
    return AgentCaller(identity=certificate.identity, certificate=certificate.marks)

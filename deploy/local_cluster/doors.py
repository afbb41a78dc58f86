# SPDX-License-Identifier: Apache-2.0
"""Clients of the doors beside gRPC: a VPN gateway by RADIUS, and a portal by HTTP."""

import os
import ssl
import uuid
from pathlib import Path

import httpx

from local_cluster.cluster import LocalNode
from sparecode_client.connection import radius
from sparecode_client.connection.radius import RadiusCode

RADIUS_CLIENT = "gateway"


class NoAnswerError(Exception):
    """A node gave no decision; the message names it."""


def write_secret(file: Path, secret: str) -> None:
    """Write a secret into a file that only its owner can read."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(f"{secret}\n")


def by_radius(node: LocalNode, secret: str, username: str, passcode: str) -> bool:
    """
    Send a passcode as pyrad's client does, and return whether it was accepted.

    Raises:
        NoAnswerError: Three copies of the packet got no answer.
    """
    reply = radius.ask(
        node.ports.host,
        node.ports.radius,
        secret=secret.encode(),
        username=username,
        passcode=passcode,
    )
    if reply is None:
        raise NoAnswerError(f"{node.node_id} did not answer by RADIUS")
    return reply.code is RadiusCode.ACCEPT


def by_http(
    node: LocalNode, files: ssl.SSLContext, username: str, passcode: str
) -> bool:
    """
    Post a passcode to a node, and return whether it was accepted.

    Raises:
        NoAnswerError: There was no decision.
    """
    try:
        answer = httpx.post(
            f"{node.http_url}/v1/authenticate",
            json={"username": username, "passcode": passcode},
            headers={"Idempotency-Key": str(uuid.uuid4())},
            verify=files,
            timeout=10,
        ).raise_for_status()
    except httpx.HTTPError as error:
        raise NoAnswerError(
            f"{node.node_id} did not answer by HTTP: {error}"
        ) from error
    return bool(answer.json()["decision"] == "ACCEPTED")

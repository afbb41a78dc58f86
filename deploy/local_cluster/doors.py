# SPDX-License-Identifier: Apache-2.0
"""Clients of the doors beside gRPC, which the story plays: a VPN gateway by RADIUS."""

import os
from pathlib import Path

from local_cluster.cluster import LocalNode
from sparecode_client.connection import radius
from sparecode_client.connection.radius import RadiusCode

RADIUS_CLIENT = "gateway"


class NoAnswerError(Exception):
    """A node did not answer; the message names it."""


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

# SPDX-License-Identifier: Apache-2.0
"""
Notifies systemd of the node's state, for `Type=notify` in the unit.

The node is ready when all listeners are open, even without a quorum: machines that
start together must not wait for each other. Probes check the quorum (`/readyz`).
"""

import logging
import os
import socket

log = logging.getLogger(__name__)

LONG_START_S = 30 * 60
"""Time for each part of a start that shrinks a large state on a slow disk."""


def extend_start() -> None:
    """Let the service manager wait this much longer for a start, from now on."""
    notify(f"EXTEND_TIMEOUT_USEC={LONG_START_S * 1_000_000}")


def notify(state: str) -> None:
    """Send a state to the service manager, as sd_notify(3) does, if it listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # An abstract name, see unix(7).
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect(address)
            connection.sendall(state.encode())
    except OSError as error:
        log.warning("systemd_not_told", extra={"cause": str(error)})

# SPDX-License-Identifier: Apache-2.0
"""
Tells systemd how far the node is: `Type=notify` of its unit.

Ready means that all listeners are open. Whether there is a quorum is for probes to
ask: three machines that start together must not wait for each other here.
"""

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send what sd_notify(3) sends, to whoever has started the node and asked for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # A name that is not in the file system (unix(7)).
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect(address)
            connection.sendall(state.encode())
    except OSError as error:
        log.warning("systemd_not_told", extra={"cause": str(error)})

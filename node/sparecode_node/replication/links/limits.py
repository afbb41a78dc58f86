# SPDX-License-Identifier: Apache-2.0
"""
How many connections a listener takes, and how long one of gRPC waits for a handshake.

gRPC's defaults are no bound and two minutes. Whoever reaches a port, with no
certificate, could so take every file that the process may have open: its links to
the other members and its disk would fail with it.
"""

import resource
from typing import NamedTuple

HANDSHAKE_MS = 20_000
"""From accepting a connection to the end of its TLS handshake."""

OPEN_FILES_MAX = 65_536
"""So many files are wanted open at once; deploy/systemd allows as many."""


class Connections(NamedTuple):
    """A bound of them: 20 KB of memory each before a handshake, more behind it."""

    most: int
    share: int
    """Nor more than one in so many of the files that this process may have open."""


AGENTS = Connections(most=8192, share=4)
ADMINISTRATORS = Connections(most=1024, share=16)
MEMBERS = Connections(most=1024, share=16)
BROWSERS = Connections(most=512, share=16)
"""
gRPC counts for each address that a listener's name leads to: `localhost` has two.
So it may be twice as much, and still leaves files for what the node itself opens.
"""


def raise_open_files() -> None:
    """Have this process open as many files as it may, up to `OPEN_FILES_MAX`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(OPEN_FILES_MAX, _bounded(hard))
    if _bounded(soft) < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listener_options(connections: Connections) -> tuple[tuple[str, int], ...]:
    """Return what a server of gRPC must be told, to keep to all this."""
    return (
        ("grpc.max_allowed_incoming_connections", most_open(connections)),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    )


def most_open(connections: Connections) -> int:
    """Return how many may be open, with the files that this process may have."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(connections.most, _bounded(open_files) // connections.share)


def _bounded(open_files: int) -> int:
    return OPEN_FILES_MAX if open_files == resource.RLIM_INFINITY else open_files

# SPDX-License-Identifier: Apache-2.0
"""
Limits of listeners: connections, handshakes, and calls of members.

gRPC's defaults are unlimited connections and two minutes for a handshake. Anyone who
reaches a port, without a certificate, could take every file that the process may have
open: the links to the other members and the disk would fail, too.

A certificate of the members' authority, or of a ticket, is enough to open calls on the
listener for members: a removed node can, too. A call that sends nothing never reaches
our code, so gRPC has to count the calls.
"""

import resource
from typing import NamedTuple

from sparecode_node.replication.settings import MEMBERS_MAX

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


MEMBER_CALLS_MAX = 512
"""
At once, of one member on another; so many are never needed.

Some 400 are the most: its administrators have 128 calls under way over gRPC and 256 in
browsers, each of which asks a member one thing at a time. The rest are its own: the
link, two messages with calls for the primary, a question where to read, a snapshot,
its look at the others' states, a key. Calls of agents are no more than that, however
many they are: they go together, in those two messages.
"""

STREAMS_MAX = 2 * MEMBER_CALLS_MAX
"""
At once, on one connection; callers wait for one to be free.

Twice as many: one that was just answered counts for a moment longer, and a member has
one connection to another.
"""

CALLS_MAX = (MEMBERS_MAX - 1) * MEMBER_CALLS_MAX + STREAMS_MAX
"""
At once, on the listener; beyond, gRPC itself answers `RESOURCE_EXHAUSTED`.

Room for all that the other members may ask, beside one connection that is full: nobody
keeps them away with one. With several, whoever has a certificate can: gRPC does not
count by it. The links that stand go on then, and Raft with them, until one is begun
anew, for a new certificate say. Of calls that are handed to the primary the outcome is
unknown to their node, which asks again by the same request id. A joiner has one call.
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

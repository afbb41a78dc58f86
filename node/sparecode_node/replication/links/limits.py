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
"""The number of open files to ask for; deploy/systemd allows it."""


class Connections(NamedTuple):
    """Maximum connections. Each takes 20 KB before the TLS handshake, and more after it."""

    most: int
    share: int
    """And at most one connection for this many files that the process may open."""


AGENTS = Connections(most=8192, share=4)
ADMINISTRATORS = Connections(most=1024, share=16)
MEMBERS = Connections(most=1024, share=16)
BROWSERS = Connections(most=512, share=32)
HTTP_AGENTS = Connections(most=1024, share=32)
RADSEC_AGENTS = Connections(most=256, share=64)
"""
gRPC counts for each address of a listener's name: `localhost` has two. So there may be
twice as many connections, and the share still leaves files for the node itself.
"""


MEMBER_CALLS_MAX = 512
"""
At once, of one member on another; a member never needs all of them.

It needs about 400 at most. Its administrators have up to 128 calls in progress over
gRPC and 256 in browsers, and each of these asks a member one thing at a time. The rest
are its own: the link, a ping, two messages with calls for the primary, a question for
the index to read at, a snapshot, its requests for the others' statuses, a key. Agents'
calls add nothing, however many there are: they travel in those two messages.
"""

STREAMS_MAX = 2 * MEMBER_CALLS_MAX
"""
At once, on one connection; callers wait for a free one.

Twice the calls of a member: an answered call counts for a moment longer, and a member
has one connection to another.
"""

CALLS_MAX = (MEMBERS_MAX - 1) * MEMBER_CALLS_MAX + STREAMS_MAX
"""
At once, on the listener; for more, gRPC itself answers `RESOURCE_EXHAUSTED`.

There is room for all calls of the other members beside one full connection: one
connection cannot keep the members away. Several connections of a node with a
certificate can, because gRPC does not count by certificate. The links that exist go on
then, and Raft with them, until one has to start again, for a new certificate for
example. The outcome of calls that were forwarded to the primary is unknown to their
node, which asks again by the same request id. A joiner has one call.
"""


def waiting_options(calls_max: int) -> tuple[tuple[str, int], ...]:
    """
    Return the options that let this many calls wait until the event loop takes them.

    By default gRPC cancels some of the calls at random when more than 1000 wait, and
    all further ones when 3000 wait. A loop that is busy for a moment would lose calls
    that `CALLS_MAX` allows. Both limits are the same, so no call is cancelled at random.
    """
    return (
        ("grpc.server.max_pending_requests", calls_max),
        ("grpc.server.max_pending_requests_hard_limit", calls_max),
    )


AGES = (
    ("grpc.max_connection_age_ms", 30 * 60_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
)
"""
How long a connection of a member lasts, as those of other callers.

The next handshake checks the certificate again: an authority may be trusted no longer.
"""


def raise_open_files() -> None:
    """Raise this process's limit of open files, up to `OPEN_FILES_MAX`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(OPEN_FILES_MAX, _bounded(hard))
    if _bounded(soft) < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listener_options(connections: Connections) -> tuple[tuple[str, int], ...]:
    """Return the options of a gRPC server that keep it within these limits."""
    return (
        ("grpc.max_allowed_incoming_connections", most_open(connections)),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    )


def most_open(connections: Connections) -> int:
    """Return the maximum of open connections, given this process's limit of open files."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(connections.most, _bounded(open_files) // connections.share)


def _bounded(open_files: int) -> int:
    return OPEN_FILES_MAX if open_files == resource.RLIM_INFINITY else open_files

# SPDX-License-Identifier: Apache-2.0
"""
How many calls may be under way on the listener for members, and why so many.

Whoever shows a certificate of the members' authority, or of a ticket, may open calls
there: a node that was removed, too. A call that sends nothing never gets to any code
of ours, so gRPC has to count them.
"""

from sparecode_node.replication.settings import MEMBERS_MAX

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

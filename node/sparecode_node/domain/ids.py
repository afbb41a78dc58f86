# SPDX-License-Identifier: Apache-2.0
"""
Identifiers, each with its own type, so that mypy refuses to mix them.

Times are `at_ms` (milliseconds since the Unix epoch, int); durations end in
`_ms` or `_s`.
"""

from typing import NewType

UserId = NewType("UserId", str)
"""Identifies a user forever, even if the username changes (UUID)."""

GroupKey = NewType("GroupKey", str)
"""The folded name of a group of users; a group has no other properties."""

NameKey = NewType("NameKey", str)
"""A folded username (NFKC and casefold): equal names have equal keys."""

TokenSerial = NewType("TokenSerial", str)
"""The unique serial number on the back of a token."""

SetId = NewType("SetId", str)
"""Identifies a set of emergency codes (UUID, drawn by the node that generates it)."""

AgentIdentity = NewType("AgentIdentity", str)
"""The one URI or DNS subject name in an agent's certificate."""

AdministratorName = NewType("AdministratorName", str)
"""The name of an administrator, folded like a username."""

SessionId = NewType("SessionId", str)
"""SHA-256 of a session's bearer token, in hex; the bearer itself is never stored."""

PUBLIC_SESSION_DIGITS = 16
"""People see this many digits of a session's id: enough to tell sessions apart."""

NodeId = NewType("NodeId", str)
"""The name of a node, as in its certificate."""

RequestId = NewType("RequestId", str)
"""A caller's id of one request (UUID); a retry carries the same id (Q1)."""

KeyId = NewType("KeyId", int)
"""The number of a key in the key ring, stored beside every value made with the key."""

NO_USER = UserId("")
"""The user of an unknown name, and of a token without one: no row has this id."""
NO_SESSION = SessionId("")
"""The session of callers that are not administrators."""
NO_KEY = KeyId(0)
"""The key of an absent value."""
FIRST_KEY = KeyId(1)
"""The first key of every cluster."""

Moment = NewType("Moment", int)
"""The position of a tokencode: a time step (TOTP, SecurID) or a counter (HOTP)."""

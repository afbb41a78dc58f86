# SPDX-License-Identifier: Apache-2.0
"""
Names of things, each with a type of its own, so that mypy refuses to mix them.

Times are `at_ms` (milliseconds since the Unix epoch, int); durations end in
`_ms` or `_s`.
"""

from typing import NewType

UserId = NewType("UserId", str)
"""Identifies a user for ever, through changes of the username (UUID)."""

GroupKey = NewType("GroupKey", str)
"""The folded name of a group of users; there is no more to a group."""

NameKey = NewType("NameKey", str)
"""A username after NFKC and casefold: equal names have equal keys."""

TokenSerial = NewType("TokenSerial", str)
"""The serial number on a token's back; unique."""

SetId = NewType("SetId", str)
"""Identifies a set of one-time tokencodes (UUID, drawn where it was generated)."""

AgentIdentity = NewType("AgentIdentity", str)
"""What an agent's certificate says it is: its one URI or DNS subject name."""

AdministratorName = NewType("AdministratorName", str)
"""Names an administrator; folded like a username."""

SessionId = NewType("SessionId", str)
"""SHA-256 of a session's bearer token, in hex; the bearer itself is never stored."""

NodeId = NewType("NodeId", str)
"""Names one node of the cluster, as its certificate does."""

RequestId = NewType("RequestId", str)
"""A caller's name for one request (UUID); a retry carries the same (Q1)."""

KeyId = NewType("KeyId", int)
"""Names a key of the key ring; stands beside whatever was made with that key."""

NO_SESSION = SessionId("")
"""Of callers that are not administrators."""
NO_KEY = KeyId(0)
"""Of a value that is not there."""
FIRST_KEY = KeyId(1)
"""Of every cluster, from its beginning on."""

Moment = NewType("Moment", int)
"""What a tokencode is spent at: a time step (TOTP, SecurID) or an HOTP counter."""

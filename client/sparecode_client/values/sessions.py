# SPDX-License-Identifier: Apache-2.0
"""Sessions of administrators."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session of an administrator, valid on every node."""

    administrator: str
    role: str
    end_time: datetime | None
    session: str = field(default="", repr=False)
    """The bearer token; set only by signing in."""
    device_cookie: str = field(default="", repr=False)
    """Pass it to the next sign-in from this device; set only by signing in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """An open session, without its bearer token."""

    session_id: str
    administrator: str
    open_time: datetime | None
    use_time: datetime | None
    """When it was last used, to the minute."""
    unused_end_time: datetime | None
    """When it ends if it is not used again."""
    end_time: datetime | None
    """When it ends at the latest."""
    node_id: str
    """The node that it was opened on. Empty: an older node opened it."""
    address: str
    """The address that it was opened from."""
    door: str
    """How it was opened: `console` or `api`."""
    calling: bool
    """Whether it is the session of the call."""

# SPDX-License-Identifier: Apache-2.0
"""Sessions of administrators."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta


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
class BrowserLogin:
    """A sign-in that waits until its administrator approves it in the console."""

    administrator: str
    user_code: str
    """What the administrator types in the console."""
    page: str
    """The address of the console's page. Empty: the node does not know it."""
    end_time: datetime | None
    """When it ends if it was not collected."""
    interval: timedelta
    """Wait as long between two polls."""
    device_code: str = field(default="", repr=False)
    """Collects the session. A secret."""


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
    """How it was opened: `console`, `api`, or `browser`: by a program, and approved in the
    console by its administrator."""
    calling: bool
    """Whether it is the session of the call."""

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

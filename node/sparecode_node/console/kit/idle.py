# SPDX-License-Identifier: Apache-2.0
"""
The idle timeout: a browser that is unused for a while is signed out.

The time of the last use is in a cookie of its own, with a tag that only the holder
of the session can make. Nodes therefore store nothing and propose nothing when a
page is opened, and every node can check a cookie that another node set. Policy sets
both the idle timeout and the lifetime of the session itself.
"""

import hashlib
import hmac
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from sparecode_node.console.kit.security import LAST_USE_COOKIE, set_cookie
from sparecode_node.domain.policy import MINUTE_MS

UPDATE_MS: Final = MINUTE_MS
"""The shortest time between two updates of the cookie."""

_PURPOSE = b"sparecode console used "


def record_use(response: Response, bearer: str, now_ms: int) -> None:
    """Record in the browser that it was used now."""
    set_cookie(response, LAST_USE_COOKIE, f"{now_ms}.{_tag(bearer, str(now_ms))}")


def last_use_ms(request: Request, bearer: str) -> int | None:
    """Return the last use of this session in the browser; None if unknown."""
    at, _, tag = request.cookies.get(LAST_USE_COOKIE, "").partition(".")
    if not hmac.compare_digest(tag.encode(), _tag(bearer, at).encode()):
        return None
    return int(at)


def is_idle(at_ms: int | None, now_ms: int, idle_ms: int) -> bool:
    """Return whether the browser was unused for longer than *idle_ms*."""
    return at_ms is None or now_ms - at_ms > idle_ms


def needs_update(at_ms: int | None, now_ms: int) -> bool:
    """Return whether the cookie needs an update."""
    return at_ms is None or abs(now_ms - at_ms) > UPDATE_MS


def _tag(bearer: str, at: str) -> str:
    return hmac.new(bearer.encode(), _PURPOSE + at.encode(), hashlib.sha256).hexdigest()

# SPDX-License-Identifier: Apache-2.0
"""
The idle time-out: a browser that nobody has used for a while is signed out.

When it was used last is in a cookie of its own, with a tag that only who holds the
session can make. So nothing is kept on a node or proposed for every page, and
any node judges what any node has set. For how long is policy, as is the absolute
time-out, which is the session's.
"""

import hashlib
import hmac
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from sparecode_node.console.kit.security import SEEN_COOKIE, set_cookie
from sparecode_node.domain.policy import MINUTE_MS

FRESH_MS: Final = MINUTE_MS
"""The cookie is not set anew more often than that."""

_PURPOSE = b"sparecode console used "


def saw(response: Response, bearer: str, now_ms: int) -> None:
    """Have the browser know that it was used now."""
    set_cookie(response, SEEN_COOKIE, f"{now_ms}.{_tag(bearer, str(now_ms))}")


def seen_ms(request: Request, bearer: str) -> int | None:
    """Return when the browser was used last, with this session; None: not known."""
    at, _, tag = request.cookies.get(SEEN_COOKIE, "").partition(".")
    if not hmac.compare_digest(tag.encode(), _tag(bearer, at).encode()):
        return None
    return int(at)


def is_idle(at_ms: int | None, now_ms: int, idle_ms: int) -> bool:
    """Say whether the browser was left alone for longer than *idle_ms*."""
    return at_ms is None or now_ms - at_ms > idle_ms


def is_stale(at_ms: int | None, now_ms: int) -> bool:
    """Say whether it is worth telling the browser the time again."""
    return at_ms is None or abs(now_ms - at_ms) > FRESH_MS


def _tag(bearer: str, at: str) -> str:
    return hmac.new(bearer.encode(), _PURPOSE + at.encode(), hashlib.sha256).hexdigest()

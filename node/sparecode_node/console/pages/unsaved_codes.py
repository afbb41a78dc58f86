# SPDX-License-Identifier: Apache-2.0
"""
What a form says after a reload about codes that it showed and that were not saved.

No node keeps such codes. A cookie has the token and the time: so the page also knows
without a script, and after it was left.
"""

from starlette.responses import Response

from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.rendering import within
from sparecode_node.console.kit.security import (
    UNSAVED_COOKIE,
    forget_cookie,
    set_cookie,
)
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.pages.emergency_subject import Subject

_DIGITS_MAX = 16


def remember(visit: Visit, response: Response, serial: str) -> None:
    """Record in the browser that it was shown codes of a token."""
    set_cookie(response, UNSAVED_COOKIE, f"{serial}.{visit.site.clock.now_ms()}")


def forget(visit: Visit, response: Response, serial: str) -> None:
    """Delete the record: the codes are saved, or the page has said what became of them."""
    if _record(visit)[0] == serial:
        forget_cookie(response, UNSAVED_COOKIE)


def words(visit: Visit, subject: Subject) -> str:
    """Return what became of codes of this token; empty: none were left unsaved."""
    serial, at = _record(visit)
    if serial != subject.token.serial or not (at.isascii() and at.isdecimal()):
        return ""
    at_ms, now_ms = int(at[:_DIGITS_MAX]), visit.site.clock.now_ms()
    if now_ms - at_ms > subject.policy.draft_lifetime_ms:
        return ""
    # They may have been saved in another tab, or by the console of another node.
    if any(each.issued_at_ms >= at_ms for each in subject.access.sets):
        return ""
    return _(
        "The codes generated %(distance)s are not saved. Unless another tab still shows them, they are gone: they were never valid. Generate codes again.",
        distance=within(at_ms, now_ms),
    )


def _record(visit: Visit) -> tuple[str, str]:
    """Return the serial of a token, and when codes were generated for it."""
    serial, _dot, at = visit.request.cookies.get(UNSAVED_COOKIE, "").rpartition(".")
    return serial, at

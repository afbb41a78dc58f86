# SPDX-License-Identifier: Apache-2.0
"""The sheet of codes as a text file; the printed one is in emergency_saved.html."""

import datetime as dt
from collections.abc import Sequence

from sparecode_node.console.kit.forms import Form, zone_of
from sparecode_node.console.kit.navigation import code_words
from sparecode_node.console.kit.rendering import plain_time, utc
from sparecode_node.queries.views import TokenView
from sparecode_node.services.emergency.emergency_access import ShownCode
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.fields import TIME_MAX_MS


def text_of(
    token: TokenView, codes: Sequence[ShownCode], form: Form, issuer: str
) -> str:
    """
    Return the text. *form*: of the button, with the times and the browser's time zone.

    The browser has the only copy of the codes, and of what was committed with them.
    """
    zone = _zone(form.text("zone"))
    ends, issued = _time(form.text("ends"), zone), _time(form.text("issued"), zone)
    user = token.username
    if token.display_name:
        user = f"{token.display_name} ({token.username})"
    index = form.text("index")
    facts = (
        ("User", user),
        ("Token serial number", token.serial),
        ("Valid until", ends or "used or voided"),
        ("Sign in with", code_words(token)),
    )
    once = "Each code works once. Tick it off when you have used it."
    if form.flag("fixed"):
        once = "This code may be used until it expires."
    lines = [
        "Emergency access tokencodes",
        "",
        *(f"{name + ':':<21}{value}" for name, value in facts),
        "",
        f"{once} Upper or lower case, with or without the hyphen.",
        "",
        *(f"[ ] {code.ordinal:>3}  {code.code}" for code in codes),
        "",
        "Keep this sheet separate from the PIN. Destroy it when the token is back.",
    ]
    if issued:
        at = f", log index {index}" if index.isascii() and index.isdigit() else ""
        lines.append(f"Issued {issued} by {issuer}{at}.")
    return "\r\n".join(lines) + "\r\n"


def _zone(name: str) -> dt.tzinfo:
    try:
        return zone_of("zone", name or "UTC")
    except InvalidFieldError:
        return dt.UTC


def _time(at_ms: str, zone: dt.tzinfo) -> str:
    """Return a time in the browser's zone, and in UTC; empty: there is none."""
    if not (at_ms.isascii() and at_ms.isdigit()) or int(at_ms) > TIME_MAX_MS:
        return ""
    shown = plain_time(int(at_ms))
    if zone is dt.UTC:
        return shown
    return f"{utc(int(at_ms)).astimezone(zone):%Y-%m-%d %H:%M} {zone} ({shown})"

# SPDX-License-Identifier: Apache-2.0
"""The sheet of codes, in the language of its user: what it says, and as a text file."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparecode_node.console.kit import languages
from sparecode_node.console.kit.forms import Form, zone_of
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.navigation import code_words
from sparecode_node.console.kit.rendering import in_words, plain_time, time, utc
from sparecode_node.queries.views import TokenView
from sparecode_node.services.emergency.emergency_access import ShownCode
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.fields import TIME_MAX_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """What was committed with the codes."""

    ends_at_ms: int | None
    """None: the codes are valid until they are used or voided."""
    issued_at_ms: int | None
    """None: not known, so the sheet does not say it."""
    issuer: str
    is_fixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """The texts of a sheet, for every form that it has: page, text, other files."""

    language: str
    direction: str
    """As in HTML: `ltr` or `rtl`."""
    title: str
    facts: tuple[tuple[str, str], ...]
    """Labels and values."""
    rules: str
    """How the codes are used."""
    codes: tuple[ShownCode, ...]
    keeping: str
    """How to keep the sheet."""
    issued: str
    """When and by whom it was issued; empty: not known."""


def language_of(token: TokenView) -> str:
    """Return the language of a token's sheet: its user's, or else that of the page."""
    return token.language or languages.current()


def sheet_of(
    token: TokenView,
    codes: Sequence[ShownCode],
    issue: Issue,
    show: Callable[[int], str] = plain_time,
) -> Sheet:
    """Return the texts of a sheet. *show*: how it writes times."""
    with languages.using(language_of(token)):
        user = token.username
        if token.display_name:
            user = f"{token.display_name} ({token.username})"
        ends = issue.ends_at_ms
        return Sheet(
            language=languages.current(),
            direction=languages.direction(),
            title=_("Emergency access tokencodes"),
            facts=(
                (_("User"), user),
                (_("Token serial number"), token.serial),
                (
                    _("Valid until"),
                    _("used or voided") if ends is None else show(ends),
                ),
                (_("Sign in with"), code_words(token)),
            ),
            rules=(
                _("This code may be used until it expires.")
                if issue.is_fixed
                else _("Each code works once. Tick it off when you have used it.")
            )
            + " "
            + _("Upper or lower case, with or without the hyphen."),
            codes=tuple(codes),
            keeping=_(
                "Keep this sheet separate from the PIN. Destroy it when the token is back."
            ),
            issued=_issued(issue, show),
        )


def printed(
    token: TokenView,
    codes: Sequence[ShownCode],
    ends_at_ms: int | None,
    issued_at_ms: int,
    issuer: str,
    is_fixed: bool,  # noqa: FBT001 - Templates call it, in the order of their macro.
) -> Sheet:
    """Return the texts of the printed sheet, with times that the script converts."""
    issue = Issue(
        ends_at_ms=ends_at_ms,
        issued_at_ms=issued_at_ms,
        issuer=issuer,
        is_fixed=is_fixed,
    )
    return sheet_of(token, codes, issue, time)


def _issued(issue: Issue, show: Callable[[int], str]) -> str:
    if issue.issued_at_ms is None:
        return ""
    at = show(issue.issued_at_ms)
    return _("Issued %(time)s by %(issuer)s.", time=at, issuer=issue.issuer)


def issue_of(form: Form, issuer: str) -> Issue:
    """
    Return what was committed, as the form of a button says.

    The browser has the only copy of the codes, and of what was committed with them.
    """
    return Issue(
        ends_at_ms=_moment(form.text("ends")),
        issued_at_ms=_moment(form.text("issued")),
        issuer=issuer,
        is_fixed=form.flag("fixed"),
    )


def of_form(
    token: TokenView, codes: Sequence[ShownCode], form: Form, issuer: str
) -> Sheet:
    """Return the sheet. *form*: of the button, with the browser's time zone."""
    zone = _zone(form.text("zone"))
    return sheet_of(
        token, codes, issue_of(form, issuer), lambda at_ms: in_zone(at_ms, zone)
    )


def text_of(
    token: TokenView, codes: Sequence[ShownCode], form: Form, issuer: str
) -> str:
    """Return the sheet as text. *form*: of the button, with the browser's time zone."""
    sheet = of_form(token, codes, form, issuer)
    width = max(len(name) for name, _value in sheet.facts) + 2
    lines = [
        sheet.title,
        "",
        *(f"{name + ':':<{width}}{value}" for name, value in sheet.facts),
        "",
        sheet.rules,
        "",
        *(f"[ ] {code.ordinal:>3}  {code.code}" for code in sheet.codes),
        "",
        sheet.keeping,
        *([sheet.issued] if sheet.issued else []),
    ]
    return "\r\n".join(lines) + "\r\n"


def in_zone(at_ms: int, zone: dt.tzinfo) -> str:
    """Return a time in a zone, and in UTC."""
    shown = plain_time(at_ms)
    if zone is dt.UTC:
        return shown
    return f"{in_words(utc(at_ms).astimezone(zone))} {zone} ({shown})"


def _zone(name: str) -> dt.tzinfo:
    try:
        return zone_of("zone", name or "UTC")
    except InvalidFieldError:
        return dt.UTC


def _moment(at_ms: str) -> int | None:
    if not (at_ms.isascii() and at_ms.isdigit()) or int(at_ms) > TIME_MAX_MS:
        return None
    return int(at_ms)

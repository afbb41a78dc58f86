# SPDX-License-Identifier: Apache-2.0
"""Templates, and the formats of values in them: times, codes, counts."""

import base64
import datetime as dt
import functools
import re
import zoneinfo
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sparecode_node.console.kit import navigation, token_menu
from sparecode_node.console.kit.recovery import RECOVERY
from sparecode_node.domain.audit import without_authentication

_WORD = re.compile(r"[A-Z][a-z]*")
_PIN = re.compile(r"\bpin\b", re.IGNORECASE)
_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return a page."""
    return _environment().get_template(template).render(context)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sparecode_node.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        time=time,
        time_of_day=time_of_day,
        moment=moment,
        plain_time=plain_time,
        within=within,
        span=span,
        spelled=spelled,
        count=count,
        base64=base64_text,
        number=number,
        role=navigation.role_words,
        kind=navigation.kind_words,
        action_words=action_words,
        actor_words=actor_words,
        actor_name=actor_name,
        agent=agent_words,
        without_authentication=without_authentication,
    )
    environment.globals.update(
        zones=zones,
        navigation=navigation.navigation,
        token_links=token_menu.token_links,
        action_links=token_menu.action_links,
        recovery_words=lambda policy: RECOVERY[policy][0],
        pin_words=navigation.pin_words,
        code_words=navigation.code_words,
    )
    return environment


def utc(at_ms: int) -> dt.datetime:
    """Convert milliseconds since the Unix epoch to a date and time in UTC."""
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)


def time(at_ms: int | None, otherwise: str = "never") -> Markup | str:
    """
    Return a time as an HTML element, readable for people and programs.

    It is in UTC; the script shows it in the browser's time zone, and UTC on hover.
    """
    if at_ms is None:
        return otherwise
    exact = utc(at_ms).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time class="local" datetime="{}">{}</time>').format(
        exact, plain_time(at_ms)
    )


def time_of_day(at_ms: int) -> Markup:
    """Return a time to the second, as `time` does."""
    exact = utc(at_ms).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time class="local seconds" datetime="{}">{} UTC</time>').format(
        exact, f"{utc(at_ms):%Y-%m-%d %H:%M:%S}"
    )


def moment(at_ms: int) -> Markup:
    """Return a time to the second, for a column whose heading says UTC."""
    at = utc(at_ms)
    exact = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(
        exact, f"{at:%Y-%m-%d %H:%M:%S}"
    )


def plain_time(at_ms: int) -> str:
    """Return a time in UTC as plain text."""
    return f"{utc(at_ms):%Y-%m-%d %H:%M} UTC"


def within(at_ms: int, now_ms: int) -> str:
    """
    Return the distance of a time from now: "in 7 days", "2 hours ago".

    It is rounded to the nearest: what ends in seven days but for a few seconds ends "in
    7 days".
    """
    distance = abs(at_ms - now_ms)
    for unit_ms, unit in ((_DAY_MS, "day"), (_HOUR_MS, "hour"), (_MINUTE_MS, "minute")):
        if distance >= unit_ms - _MINUTE_MS / 2:
            words = count(max(1, (distance + unit_ms // 2) // unit_ms), unit)
            return f"in {words}" if at_ms > now_ms else f"{words} ago"
    return "in less than a minute" if at_ms > now_ms else "just now"


def span(span_ms: int) -> str:
    """Return a duration in the largest unit that divides it: "3 days", "36 hours"."""
    for unit_ms, unit in ((_DAY_MS, "day"), (_HOUR_MS, "hour")):
        if span_ms % unit_ms == 0:
            return count(span_ms // unit_ms, unit)
    return count(span_ms // _MINUTE_MS, "minute")


def spelled(code: str) -> str:
    """Return a code for a screen reader: one symbol at a time, with pauses."""
    return ", ".join(" ".join(group) for group in code.split("-"))


def count(many: int, one: str, more: str = "") -> str:
    """Return a number with its noun."""
    return f"{number(many)} {one if many == 1 else more or one + 's'}"


def base64_text(data: bytes) -> str:
    """Return bytes as text, for a form's hidden field."""
    return base64.urlsafe_b64encode(data).decode()


def number(value: int) -> str:
    """Return a whole number with its digits in groups of three."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def action_words(action: str) -> str:
    """Return an action in words: “UnlockUser” becomes “Unlock user”."""
    name = action.rpartition("/")[2]
    parts = name.split("_") if "_" in name else _WORD.findall(name) or [name]
    return _PIN.sub("PIN", " ".join(parts).capitalize())


def agent_words(identity: str) -> Markup | str:
    """Return an agent without the address of its certificate, which is shown on hover."""
    _, scheme, path = identity.rpartition("://")
    name = path.rpartition("/")[2]
    if not (scheme and name):
        return identity
    return Markup('<span title="{}">{}</span>').format(identity, name)


def actor_name(actor: str) -> Markup | str:
    """Return the actor of an event as people call it."""
    kind, _, name = actor.partition(":")
    return agent_words(name) if kind == "agent" else actor_words(actor)


def actor_words(actor: str) -> str:
    """Return the actor of an event; a person is shown without the kind of caller."""
    name = actor.removeprefix("administrator:")
    # The rest is a keyed hash, which means nothing to a reader.
    return "unknown name" if name.startswith("unknown ") else name


@functools.cache
def zones() -> tuple[str, ...]:
    """Return the names of time zones, UTC first."""
    names = sorted(
        name
        for name in zoneinfo.available_timezones()
        if "/" in name and not name.startswith(("Etc/", "SystemV/", "US/"))
    )
    return ("UTC", *names)

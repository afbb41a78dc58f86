# SPDX-License-Identifier: Apache-2.0
"""Templates, and the formats of values in them: times, codes, counts."""

import base64
import dataclasses
import datetime as dt
import functools
import json
import math
import re
import zoneinfo
from collections.abc import Mapping
from typing import Any, Literal

from babel.dates import format_date, format_time, format_timedelta
from babel.numbers import format_decimal
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sparecode_node.console.kit import languages, navigation, token_menu
from sparecode_node.console.kit.event_words import NAMES
from sparecode_node.console.kit.icons import icon
from sparecode_node.console.kit.languages import N_, gettext, ngettext, plural
from sparecode_node.console.kit.recovery import RECOVERY
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.agents import Protects
from sparecode_node.domain.audit import AuditEvent, without_authentication
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.radius import RADIUS_PREFIX
from sparecode_node.statemachine.commands import NoteRefusedCalls

_WORD = re.compile(r"[A-Z][a-z]*")
_PIN = re.compile(r"\bpin\b", re.IGNORECASE)
_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS
_UNITS: tuple[tuple[int, Literal["day", "hour", "minute"]], ...] = (
    (_DAY_MS, "day"),
    (_HOUR_MS, "hour"),
    (_MINUTE_MS, "minute"),
)


_SCRIPT_WORDS = {
    "copied": N_("Copied"),
    "notCopied": N_("Not copied: select the text and copy it yourself"),
    "tooLong": N_(
        "This file is too long for the page. Split it, or use the command below."
    ),
    "noAnswer": N_("This node does not answer."),
    "continueAt": N_("Continue on another console:"),
    "passkeyExists": N_("This device already has a passkey of your account."),
    "passkeyDomain": N_(
        "This console’s address is not in the policy’s passkey domain."
    ),
    "passkeyNone": N_(
        "No passkey was used: it was canceled, or this device has none for this console."
    ),
}
COUNTED = (
    plural("%(number)s code", "%(number)s codes"),
    plural("%(number)s day", "%(number)s days"),
    plural("%(number)s disabled user", "%(number)s disabled users"),
    plural("%(number)s entry", "%(number)s entries"),
    plural("%(number)s live code", "%(number)s live codes"),
    plural("%(number)s live emergency code", "%(number)s live emergency codes"),
    plural("%(number)s minute", "%(number)s minutes"),
    plural("%(number)s node votes", "%(number)s nodes vote"),
    plural("%(number)s passkey", "%(number)s passkeys"),
    plural("%(number)s row", "%(number)s rows"),
    plural("%(number)s token", "%(number)s tokens"),
    plural("%(number)s unused code", "%(number)s unused codes"),
    plural("%(number)s user", "%(number)s users"),
    plural("%(number)s wrong code", "%(number)s wrong codes"),
    plural("%(number)s wrong passcode", "%(number)s wrong passcodes"),
    plural("%(number)s wrong secret", "%(number)s wrong secrets"),
    plural("%(number)s wrong token passcode", "%(number)s wrong token passcodes"),
)
"""Numbers with their nouns, as `count` looks them up."""


ACTORS = {"agent": N_("agent %(name)s"), "node": N_("node %(name)s")}
"""Kinds of actors that are no persons, in words; `pages/audit` reads them back."""
_SET = re.compile(r"\bset [0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:: |\b)")
_VALUES = (
    *(each.value for each in (*Role, *RecoveryPolicy, *Protects)),
    *(field.name for field in dataclasses.fields(Policy)),
)
_INTERNALS = re.compile(rf"\b({'|'.join(each for each in _VALUES if '_' in each)})\b")


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
        extensions=["jinja2.ext.i18n"],
    )
    environment.policies["ext.i18n.trimmed"] = True
    # One environment for all languages: the texts are looked up when a page is written.
    environment.install_gettext_callables(  # type: ignore[attr-defined]
        languages.plain_gettext, languages.plain_ngettext, newstyle=True
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
        translated=languages.plain_gettext,
        kind=navigation.kind_words,
        action_words=action_words,
        target_words=target_words,
        actor_words=actor_words,
        actor_name=actor_name,
        detail=detail_words,
        agent=agent_words,
        email=email_words,
    )
    environment.globals.update(
        icon=icon,
        icon_of=navigation.ICONS.__getitem__,
        zones=zones,
        languages=languages.languages,
        lacks_texts=languages.lacks_texts,
        script_words=script_words,
        navigation=navigation.navigation,
        entry_of=navigation.entry_of,
        token_links=token_menu.token_links,
        action_links=token_menu.action_links,
        links_at_hand=token_menu.links_at_hand,
        recovery_words=lambda policy: gettext(RECOVERY[policy][0]),
        pin_words=navigation.pin_words,
        code_words=navigation.code_words,
    )
    return environment


def script_words() -> str:
    """Return the texts that scripts show, as JSON."""
    return json.dumps({name: gettext(words) for name, words in _SCRIPT_WORDS.items()})


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
        exact, in_words(utc(at_ms), seconds=True)
    )


def moment(at_ms: int) -> Markup:
    """Return a time to the second, for a column whose heading says UTC."""
    at = utc(at_ms)
    exact = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(
        exact, f"{at:%Y-%m-%d %H:%M:%S}"
    )


def plain_time(at_ms: int, *, seconds: bool = False) -> str:
    """Return a time in UTC as plain text."""
    return f"{in_words(utc(at_ms), seconds=seconds)} UTC"


def in_words(at: dt.datetime, *, seconds: bool = False) -> str:
    """Return a date and a time of day as the language writes them; English: as ISO 8601."""
    clock = "HH:mm:ss" if seconds else "HH:mm"
    if languages.current() == languages.ENGLISH:
        return f"{at:%Y-%m-%d} {format_time(at, clock, locale='en')}"
    place = languages.locale()
    day = format_date(at, "medium", locale=place)
    return f"{day} {format_time(at, clock, locale=place)}"


def within(at_ms: int, now_ms: int) -> str:
    """
    Return the distance of a time from now: "in 7 days", "2 hours ago".

    It is rounded to the nearest: what ends in seven days but for a few seconds ends "in
    7 days".
    """
    distance = abs(at_ms - now_ms)
    for unit_ms, unit in _UNITS:
        if distance >= unit_ms - _MINUTE_MS / 2:
            many = max(1, (distance + unit_ms // 2) // unit_ms)
            span_ms = many * unit_ms * (1 if at_ms > now_ms else -1)
            return _in_units(span_ms, unit, add_direction=True)
    return gettext("in less than a minute") if at_ms > now_ms else gettext("just now")


def span(span_ms: int) -> str:
    """Return a duration in the largest unit that divides it: "3 days", "36 hours"."""
    for unit_ms, unit in _UNITS:
        if span_ms % unit_ms == 0:
            return _in_units(span_ms, unit)
    return _in_units(span_ms, "minute")


def _in_units(
    span_ms: int, unit: Literal["day", "hour", "minute"], *, add_direction: bool = False
) -> str:
    return format_timedelta(
        dt.timedelta(milliseconds=span_ms),
        granularity=unit,
        threshold=math.inf,  # No larger unit than this.
        add_direction=add_direction,
        locale=languages.locale(),
    )


def spelled(code: str) -> str:
    """Return a code for a screen reader: one symbol at a time, with pauses."""
    return ", ".join(" ".join(group) for group in code.split("-"))


def count(many: int, one: str, more: str = "") -> str:
    """Return a number with its noun; `COUNTED` has every noun."""
    single, several = f"%(number)s {one}", f"%(number)s {more or one + 's'}"
    return ngettext(single, several, many, number=number(many))


def base64_text(data: bytes) -> str:
    """Return bytes as text, for a form's hidden field."""
    return base64.urlsafe_b64encode(data).decode()


def number(value: int) -> str:
    """Return a whole number with its digits in groups of three."""
    if languages.current() != languages.ENGLISH:
        return format_decimal(value, locale=languages.locale())
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def action_words(action: str) -> str:
    """Return an action in the words of the page's language, if it has them."""
    return gettext(english_words(action))


def english_words(action: str) -> str:
    """Return an action in words: “UnlockUser” becomes “Unlock user”."""
    name = action.rpartition("/")[2]
    if name in NAMES:
        return NAMES[name]
    parts = name.split("_") if "_" in name else _WORD.findall(name) or [name]
    return _PIN.sub("PIN", " ".join(parts).capitalize())


def target_words(event: AuditEvent) -> str:
    """Return the target of an event: a refused method in words, an agent by its name."""
    if event.action == NoteRefusedCalls.__name__:
        return action_words(event.target)
    return agent_name(event.target)


def agent_name(identity: str) -> str:
    """
    Return the name of an agent in its identity, or the identity if it has none.

    It is the end of the address in a certificate, or the name of a RADIUS client.
    """
    _, scheme, path = identity.rpartition("://")
    if scheme:
        return path.rpartition("/")[2]
    return identity.removeprefix(RADIUS_PREFIX)


def agent_words(identity: str) -> Markup | str:
    """Return an agent by its name; its identity is shown on hover."""
    name = agent_name(identity)
    if name in ("", identity):
        return identity
    return Markup('<span title="{}">{}</span>').format(identity, name)


def email_words(address: str) -> Markup:
    """Return an e-mail address that a narrow column breaks at its parts."""
    name, at, host = address.rpartition("@")
    return (
        Markup("{}<wbr>{}{}").format(name, at, host) if at else Markup.escape(address)
    )


def detail_words(detail: str) -> str:
    """Return details of an event without ids of sets, and names as words."""
    plain = _SET.sub("", without_authentication(detail))
    return _INTERNALS.sub(lambda match: match[1].replace("_", " "), plain)


def actor_name(actor: str) -> Markup | str:
    """Return the actor of an event as people call it."""
    kind, _, name = actor.partition(":")
    return agent_words(name) if kind == "agent" else actor_words(actor)


def actor_words(actor: str) -> str:
    """Return the actor of an event; a person is shown without the kind of caller."""
    kind, _, name = actor.partition(":")
    if kind in ACTORS:
        return gettext(ACTORS[kind], name=str(agent_name(name)))
    name = actor.removeprefix("administrator:")
    # The rest is a keyed hash, which means nothing to a reader.
    return gettext("unknown name") if name.startswith("unknown ") else name


@functools.cache
def zones() -> tuple[str, ...]:
    """Return the names of time zones, UTC first."""
    names = sorted(
        name
        for name in zoneinfo.available_timezones()
        if "/" in name and not name.startswith(("Etc/", "SystemV/", "US/"))
    )
    return ("UTC", *names)

# SPDX-License-Identifier: Apache-2.0
"""Submitted forms, read field by field; the input itself is kept as typed."""

import datetime as dt
import zoneinfo
from collections.abc import Container, Iterable, Mapping
from functools import cached_property
from urllib.parse import parse_qsl

from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.services.errors import InvalidFieldError

FIELDS_MAX = 400
_WHOLE_DIGITS_MAX = 9


class Query:
    """
    The query of a page's address.

    Anyone can write a link. So nothing of a query is ever part of a form, and this type
    shares no method with `Form`: a page that reads one for the other fails type checks.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._first: dict[str, str] = {}
        for name, value in pairs:
            self._first.setdefault(name, value)

    def word(self, name: str, default: str = "") -> str:
        """Return a value without surrounding blanks."""
        return self._first.get(name, default).strip()

    def has(self, name: str) -> bool:
        """Return whether the address has this name."""
        return name in self._first


class Form:
    """The fields of a form that this console served and a browser has sent back."""

    def __init__(self, pairs: list[tuple[str, str]] | None = None) -> None:
        self._pairs = pairs or []
        self._first: dict[str, str] = {}
        for name, value in self._pairs:
            self._first.setdefault(name, value)

    @classmethod
    def parse(cls, body: bytes) -> "Form":
        """Read `application/x-www-form-urlencoded`. Raises `InvalidFieldError`."""
        try:
            return cls(
                parse_qsl(
                    body.decode("ascii"),
                    keep_blank_values=True,
                    errors="strict",
                    max_num_fields=FIELDS_MAX,
                )
            )
        except ValueError:
            raise InvalidFieldError(
                "", _("this is not a form of the console")
            ) from None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every field, in the order of the form."""
        return list(self._pairs)

    def without(self, names: Container[str]) -> "Form":
        """Return the form without these fields, as if it had never had them."""
        boxes = " ".join(box for box in self.text("boxes").split() if box not in names)
        return Form(
            [
                (name, boxes if name == "boxes" else value)
                for name, value in self._pairs
                if name not in names
            ]
        )

    @property
    def values(self) -> Mapping[str, str]:
        """The first value of every field, as typed."""
        return self._first

    def text(self, name: str, default: str = "") -> str:
        """Return a field without surrounding blanks."""
        return self._first.get(name, default).strip()

    def secret(self, name: str) -> str:
        """Return a field exactly as typed."""
        return self._first.get(name, "")

    def flag(self, name: str) -> bool:
        """Return whether a checkbox is ticked."""
        return name in self._first

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return [value for each, value in self._pairs if each == name]

    @cached_property
    def shown(self) -> Mapping[str, str]:
        """The values of the fields as the page showed them before the input (P10)."""
        return dict(parse_qsl(self.secret("shown"), keep_blank_values=True))

    def has_changed(self, name: str, value: str = "on") -> bool:
        """Return whether the person has changed a field, or the box with *value*."""
        key = name if value == "on" else f"{name} {value}"
        if name in self.text("boxes").split():
            return (value in self.all(name)) * "on" != self.shown.get(key)
        # Browsers end lines with carriage returns.
        typed = self.secret(name).replace("\r\n", "\n")
        return name in self._first and typed != self.shown.get(name)

    def whole(self, name: str, what: str) -> int:
        """Return a whole number. Raises `InvalidFieldError`."""
        typed = self.text(name)
        if (
            not (typed.isascii() and typed.isdecimal())
            or len(typed) > _WHOLE_DIGITS_MAX
        ):
            raise InvalidFieldError(
                name, _("%(what)s must be a whole number", what=what)
            )
        return int(typed)

    def moment_ms(self, name: str) -> int:
        """
        Return the time given by the fields NAME_date, NAME_time and NAME_zone.

        Raises `InvalidFieldError` on *name*.
        """
        date, time = self.text(f"{name}_date"), self.text(f"{name}_time")
        if not date or not time:
            raise InvalidFieldError(
                name,
                _("the date is missing")
                if not date
                else _("the time of day is missing"),
            )
        try:
            local = dt.datetime.fromisoformat(f"{date}T{time}")
        except ValueError:
            raise InvalidFieldError(
                name,
                _(
                    "“%(date)s %(time)s” is not a date and time; enter them as 2026-12-31 and 17:00",
                    date=date,
                    time=time,
                ),
            ) from None
        if local.tzinfo is not None:
            raise InvalidFieldError(name, _("choose the time zone in its own field"))
        aware = local.replace(tzinfo=zone_of(name, self.text(f"{name}_zone", "UTC")))
        back = aware.astimezone(dt.UTC).astimezone(aware.tzinfo)
        if back.replace(tzinfo=None) != local:
            raise InvalidFieldError(
                name,
                _(
                    "%(time)s does not exist on %(date)s in this time zone: clocks skip it",
                    time=time,
                    date=date,
                ),
            )
        return round(aware.timestamp() * 1000)


def zone_of(name: str, key: str) -> dt.tzinfo:
    """Return a time zone. Raises `InvalidFieldError` on *name*."""
    if key.upper() == "UTC":
        return dt.UTC
    try:
        return zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidFieldError(
            name,
            _(
                "“%(key)s” is not a time zone; enter UTC or a name such as Europe/Berlin",
                key=key,
            ),
        ) from None

# SPDX-License-Identifier: Apache-2.0
"""Times, durations, codes and names, as people type and read them."""

import re
import shutil
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TextIO

_DURATION = re.compile(
    r"(?:(?P<weeks>\d+)w)?(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?"
    r"(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?"
)
NUMBER_MAX = 10**12
"""Upper limit of numbers on the command line. No counter or log gets this far."""

_GROUP = 4
_WIDTH_MIN = 40
"""Minimum terminal width to wrap for."""
_NO_BREAK = "\u00a0"
_COMMAND = re.compile(r"`[^`]*`|(?<=: )sparecode.*?(?=\.(?: |$)|$)")
"""A command in a sentence: in backquotes, or from a colon to the end of the sentence."""


def wrap(words: str, stream: TextIO) -> str:
    """
    Return a sentence wrapped at word boundaries for a terminal.

    In a file or a pipe it stays one line, which is easier to search. Commands are not
    wrapped, because people copy them.
    """
    if words.startswith(" ") or not stream.isatty():
        return words
    width = max(shutil.get_terminal_size().columns, _WIDTH_MIN)
    unbroken = _COMMAND.sub(lambda command: command[0].replace(" ", _NO_BREAK), words)
    lines = textwrap.fill(
        unbroken, width, break_long_words=False, break_on_hyphens=False
    )
    return lines.replace(_NO_BREAK, " ")


@dataclass(frozen=True, slots=True)
class When:
    """A time, or a duration relative to now."""

    value: datetime | timedelta

    def moment(self) -> datetime:
        """Return the time; a duration is added to now, by this computer's clock."""
        if isinstance(self.value, timedelta):
            return datetime.now(UTC) + self.value
        return self.value

    def past(self) -> datetime:
        """Return the time; a duration is subtracted from now."""
        if isinstance(self.value, timedelta):
            return datetime.now(UTC) - self.value
        return self.value


DURATION_MAX = timedelta(days=365_000)
"""Maximum duration: now plus or minus this must be a valid date."""

TIME_FORMS = "7d, 12h, 1d12h or 2026-12-01T12:00Z"


def read_time(text: str) -> When:
    """
    Return the time or duration in *text*.

    A time without a zone is in this computer's time zone.

    Raises:
        ValueError: *text* is neither a time nor a duration.
    """
    match = _DURATION.fullmatch(text)
    try:
        if text and match:
            parts = {unit: int(n) for unit, n in match.groupdict(default="0").items()}
            duration = timedelta(**parts)
        else:
            return When(datetime.fromisoformat(text).astimezone(UTC))
    except (OverflowError, ValueError) as error:
        raise ValueError(
            f"{text!r} is neither a duration nor a time, such as {TIME_FORMS}"
        ) from error
    if duration > DURATION_MAX:
        raise ValueError(f"{text!r} is longer than {DURATION_MAX.days}d")
    return When(duration)


def show_time(time: datetime | None, *, never: str = "-") -> str:
    """Return *time* in this computer's zone, rounded down to the minute."""
    return never if time is None else f"{time.astimezone():%Y-%m-%d %H:%M %Z}"


def show_second(time: datetime | None) -> str:
    """Return *time* in this computer's zone, rounded down to the second."""
    return "-" if time is None else f"{time.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def show_timestamp(time: datetime) -> str:
    """Return *time* for programs (RFC 3339)."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def show_code(code: str) -> str:
    """Return a code in groups for reading aloud, such as `K7PM-4XQ2`."""
    symbols = code.replace("-", "").replace(" ", "")
    return "-".join(
        symbols[start : start + _GROUP] for start in range(0, len(symbols), _GROUP)
    )


def role(name: str) -> str:
    """Return a role as options take it, such as `super-admin`."""
    return name.lower().replace("_", "-")


def plural(number: int, one: str, many: str = "") -> str:
    """Return a number with a noun, such as `1 code` or `3 codes`."""
    return f"{number} {one}" if number == 1 else f"{number} {many or f'{one}s'}"


def plain(text: str) -> str:
    """Return *text* without control characters. Names come from other people."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

# SPDX-License-Identifier: Apache-2.0
"""What people type and read: times, durations, codes, names."""

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
"""No counter, log or list of ours comes so far; nodes can be asked for as much."""

_GROUP = 4
_WIDTH_MIN = 40
"""Of a terminal; on a narrower one words are broken anyhow."""
_NO_BREAK = "\u00a0"
_COMMAND = re.compile(r"`[^`]*`|(?<=: )sparecode.*?(?=\.(?: |$)|$)")
"""In a sentence: between backquotes, or behind a colon, to the end of the sentence."""


def for_terminal(words: str, stream: TextIO) -> str:
    """
    Return a sentence broken between words, where a terminal would break it within one.

    In a file or a pipe it stays one line, for whoever searches it. Commands, which people
    copy, are not broken.
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
    """A moment, or a duration from some moment on."""

    value: datetime | timedelta

    def moment(self) -> datetime:
        """Return the moment; a duration counts from now, by this computer's clock."""
        if isinstance(self.value, timedelta):
            return datetime.now(UTC) + self.value
        return self.value

    def past(self) -> datetime:
        """Return the moment; a duration counts back from now."""
        if isinstance(self.value, timedelta):
            return datetime.now(UTC) - self.value
        return self.value


DURATION_MAX = timedelta(days=365_000)
"""So far from now on, or back, lie years that computers have a date for."""

TIME_FORMS = "7d, 12h, 1d12h or 2026-12-01T12:00Z"


def read_time(text: str) -> When:
    """
    Return what *text* says.

    A time of day without a zone is one of this computer's zone.

    Raises:
        ValueError: It is neither.
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
            f"{text!r} is neither a duration nor a time, as {TIME_FORMS}"
        ) from error
    if duration > DURATION_MAX:
        raise ValueError(f"{text!r} is more than {DURATION_MAX.days}d")
    return When(duration)


def show_time(time: datetime | None, *, never: str = "-") -> str:
    """Return *time* in this computer's zone, to the minute, which may be early."""
    return never if time is None else f"{time.astimezone():%Y-%m-%d %H:%M %Z}"


def show_second(time: datetime | None) -> str:
    """Return *time* in this computer's zone, to the second, which may be early."""
    return "-" if time is None else f"{time.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def show_timestamp(time: datetime) -> str:
    """Return *time* as programs want it (RFC 3339)."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def show_code(code: str) -> str:
    """Return a code grouped for reading aloud, as `K7PM-4XQ2`."""
    symbols = code.replace("-", "").replace(" ", "")
    return "-".join(
        symbols[start : start + _GROUP] for start in range(0, len(symbols), _GROUP)
    )


def plural(number: int, one: str) -> str:
    """Return a number of things, as `1 code` or `3 codes`."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def plain(text: str) -> str:
    """Return *text* without what a terminal would obey: names come from others."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

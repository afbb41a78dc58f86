# SPDX-License-Identifier: Apache-2.0
"""
The table `callers.txt`: who may call what.

A section has a name in brackets and a heading of callers; each further line has a method
and a word for each caller. Lines that begin with `#` are for readers.
"""

from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).with_name("callers.txt")
WORDS = {
    "may": "got past every check of who calls: it was answered, or what it asked for does "
    "not exist, is not in order or waits for a second approver",
    "own": "refused, because it was about the administrator's own user",
    "password": "refused until the administrator replaces the temporary password",
    "role": "refused, because the role may not",
    "sign-in": "refused, because nothing shows who calls: without a session that is open, "
    "or without an agent's certificate or key",
    "absent": "there is no such method where this caller can connect",
    "closed": "the TLS handshake was refused at every listener",
}
"""What happened to a call, in the order from most to least."""
MAY, OWN, PASSWORD, ROLE, SIGN_IN, ABSENT, CLOSED = WORDS
UNCLEAR = "unclear"
"""
The answer does not tell what the caller may do, as when it was refused for its fields.

No cell has this word: the test must make a better call.
"""

Section = Mapping[str, Mapping[str, str]]
"""The word for each caller, by method."""


def read(text: str) -> Mapping[str, Section]:
    """Return the sections of the table."""
    sections: dict[str, dict[str, Mapping[str, str]]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        method, _, rest = line.partition("  ")
        cells = rest.split()
        if line.startswith("["):
            rows, callers = sections.setdefault(method.strip("[]"), {}), cells
            continue
        assert method not in rows, f"{FILE.name} has two rows for {method}"
        assert len(cells) == len(callers), f"{method} needs a word for each caller"
        assert not set(cells) - set(WORDS), f"{method}: the words are {list(WORDS)}"
        rows[method] = dict(zip(callers, cells, strict=True))
    return sections


def lines(name: str, section: Section) -> list[str]:
    """Return the lines of a section, aligned, with its rows in order."""
    callers = list(next(iter(section.values())))
    width = max(map(len, section)) + 2
    columns = [max(len(each), *map(len, WORDS)) + 1 for each in callers]
    rows = [(f"[{name}]", callers)]
    rows += [(method, list(section[method].values())) for method in sorted(section)]
    return [
        method.ljust(width)
        + "".join(
            cell.ljust(column) for cell, column in zip(cells, columns, strict=True)
        ).rstrip()
        for method, cells in rows
    ]

# SPDX-License-Identifier: Apache-2.0
"""
Apply a unified diff to a tree, without `git` or `patch`.

Strict: context must match to the letter. Line numbers are hints: the nearest match
counts, so a change elsewhere in the file does no harm.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILE = re.compile(r"^--- a/(?P<old>\S+)\n\+\+\+ b/(?P<new>\S+)\n", re.MULTILINE)
HUNK = re.compile(r"^@@ -(?P<line>\d+)(?:,\d+)? \+\d+(?:,\d+)? @@.*\n", re.MULTILINE)


class PatchError(Exception):
    """A diff does not fit the tree; the message says where."""


@dataclass(frozen=True)
class Hunk:
    """Lines that stand in a file, and the lines that replace them."""

    line: int
    """Where the old lines were when the diff was written; the first is 1."""
    old: list[str]
    new: list[str]


def patched(diff: str, tree: Path) -> dict[Path, str]:
    """
    Return the new text of each file that *diff* changes; write nothing.

    Text above the first `---` is ignored. Files must exist: a diff that creates,
    deletes or renames one is refused. Raises `PatchError`.
    """
    texts: dict[Path, str] = {}
    for file, body in _sections(FILE, diff):
        name = file["old"]
        if file["new"] != name:
            raise PatchError(f"{name}: the diff renames it to {file['new']}")
        path = tree / name
        if not path.is_file():
            raise PatchError(f"{name}: no such file")
        hunks = [
            _hunk(int(head["line"]), lines.splitlines(keepends=True))
            for head, lines in _sections(HUNK, body)
        ]
        if not hunks:
            raise PatchError(f"{name}: no hunk")
        lines = path.read_text().splitlines(keepends=True)
        texts[path] = "".join(_apply(hunks, lines, name))
    if not texts:
        raise PatchError("the diff names no file")
    return texts


def _sections(head: re.Pattern[str], text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Yield each match of *head* with the text from its end to the next match."""
    heads = list(head.finditer(text))
    for match, after in itertools.zip_longest(heads, heads[1:]):
        yield match, text[match.end() : after.start() if after else len(text)]


def _hunk(line: int, body: list[str]) -> Hunk:
    old = [text[1:] for text in body if text[0] in " -"]
    new = [text[1:] for text in body if text[0] in " +"]
    return Hunk(line, old, new)


def _apply(hunks: list[Hunk], lines: list[str], name: str) -> list[str]:
    """Return the lines of a file after its hunks, which come in the file's order."""
    done: list[str] = []
    at = 0
    for hunk in hunks:
        matches = [
            start
            for start in range(at, len(lines) - len(hunk.old) + 1)
            if lines[start : start + len(hunk.old)] == hunk.old
        ]
        if not hunk.old or not matches:
            raise PatchError(f"{name}: the hunk of line {hunk.line} does not match")
        start = min(matches, key=lambda match: abs(match - (hunk.line - 1)))
        done += lines[at:start] + hunk.new
        at = start + len(hunk.old)
    return done + lines[at:]

# SPDX-License-Identifier: Apache-2.0
"""What was found, in words."""

import enum
import textwrap
from dataclasses import dataclass

_COLUMNS = 80
_WORDS_AT = 20


class Verdict(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    verdict: Verdict
    subject: str
    words: str
    """What is so; and what to do, if it is not fine."""

    def __str__(self) -> str:
        """Return the lines for a person; a path is never cut, however long."""
        verdict = self.verdict.value
        shown = verdict if self.verdict is Verdict.OK else verdict.upper()
        return textwrap.fill(
            self.words,
            _COLUMNS,
            initial_indent=f"{shown:<5} {self.subject:<13} ",
            subsequent_indent=" " * _WORDS_AT,
            break_long_words=False,
            break_on_hyphens=False,
        )


def ok(subject: str, words: str) -> Finding:
    """Return that something is fine."""
    return Finding(Verdict.OK, subject, words)


def warn(subject: str, words: str) -> Finding:
    """Return that something will be a problem, or might be."""
    return Finding(Verdict.WARN, subject, words)


def fail(subject: str, words: str) -> Finding:
    """Return that something is a problem."""
    return Finding(Verdict.FAIL, subject, words)


def summary(findings: list[Finding]) -> str:
    """Return the last line."""
    failures = sum(finding.verdict is Verdict.FAIL for finding in findings)
    warnings = sum(finding.verdict is Verdict.WARN for finding in findings)
    if not failures and not warnings:
        return "Everything is fine."
    return f"Failures: {failures}. Warnings: {warnings}."

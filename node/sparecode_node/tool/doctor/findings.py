# SPDX-License-Identifier: Apache-2.0
"""The result of one check, and how it is printed."""

import enum
import textwrap
from dataclasses import dataclass

_COLUMNS = 80
_WORDS_AT = 20


class Verdict(enum.StrEnum):
    """The result of a check: fine, a risk, or a problem."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    verdict: Verdict
    subject: str
    words: str
    """What the check found, and what to do if it is not fine."""

    def __str__(self) -> str:
        """Return the lines for a person, wrapped between words; paths are never broken."""
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
    """Return a finding that needs no action."""
    return Finding(Verdict.OK, subject, words)


def warn(subject: str, words: str) -> Finding:
    """Return a finding that is or may become a risk."""
    return Finding(Verdict.WARN, subject, words)


def fail(subject: str, words: str) -> Finding:
    """Return a finding that is a problem now."""
    return Finding(Verdict.FAIL, subject, words)


def summary(findings: list[Finding]) -> str:
    """Return the last line: the numbers of failures and warnings."""
    failures = sum(finding.verdict is Verdict.FAIL for finding in findings)
    warnings = sum(finding.verdict is Verdict.WARN for finding in findings)
    if not failures and not warnings:
        return "Everything is fine."
    return f"Failures: {failures}. Warnings: {warnings}."

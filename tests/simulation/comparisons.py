# SPDX-License-Identifier: Apache-2.0
"""
What the checks of a run have had in hand, as opposed to whether they were called.

A check of logs that share no entry, of reads that nobody answered, or of codes that
nobody spent, passes and shows nothing. So each is counted where it compares
something, and a campaign in which one never did has failed.
"""

import collections
import enum


class Comparison(enum.Enum):
    """What was compared. The value is what a person reads."""

    LEADER = "leaders that were the only one of their term"
    COMPLETE = "committed entries that a new leader had"
    LOGS = "pairs of logs with shared, equal entries"
    APPLIED = (
        "entries applied again with the same result, by another node or after a restart"
    )
    ANSWERED = "calls, reads and changes answered once and in time"
    READ = "reads that covered everything committed before"
    NOT_APPLIED = "calls answered as not applied, and not in the log"
    STAMP = "stamping clocks that agreed with a quorum"
    DIGEST = "states with the same digest as the others"
    CHANGE = "acknowledged membership changes, in force to the end"
    CONFIGURATION = "changes of voters, each by at most one"
    INSTALLED = "installed snapshots that were newer, committed and complete"
    HEALED = "clusters that wrote and read again after healing"

    REFERENCE = "states compared with a machine that never failed"
    TOLD = "acknowledged requests found at their index"
    REPEATED = "retries with the same answer"
    SPENT = "codes and tokencodes, each spent by one request"
    WRONG = "refused guesses"
    ISSUED = "uses of a code whose set was issued and not void"
    ENDING = "uses of a code before its end"

    @property
    def of_codes(self) -> bool:
        """Needs the real state machine."""
        names = list(Comparison)
        return names.index(self) >= names.index(Comparison.REFERENCE)


Comparisons = collections.Counter[Comparison]

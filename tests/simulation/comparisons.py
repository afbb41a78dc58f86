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

    LEADER = "leaders seen to be the only one of their term"
    COMPLETE = "entries that a new leader had, as it must"
    LOGS = "pairs of logs that shared entries, and agreed"
    APPLIED = "entries applied again, by another node or life, and the same"
    ANSWERED = "calls, reads and changes answered once, and in time"
    READ = "reads that covered what was committed before"
    NOT_APPLIED = "calls told as not applied, and not in the log"
    STAMP = "clocks that stamped, and agreed with a quorum's"
    DIGEST = "states with the digest of the others"
    CHANGE = "changes of members acknowledged, and in force to the end"
    CONFIGURATION = "changes of voters, each by one at most"
    INSTALLED = "snapshots installed, newer, committed and whole"
    HEALED = "clusters that wrote and read again after the heal"

    REFERENCE = "states compared with that of a machine that never failed"
    TOLD = "acknowledged requests found where they were said to be"
    REPEATED = "requests answered again, and alike"
    SPENT = "codes and tokencodes spent, each by one request"
    WRONG = "guesses refused"
    ISSUED = "uses of a code whose set had been issued, and was not void"
    ENDING = "uses of a code that had an end, and before it"

    @property
    def of_codes(self) -> bool:
        """Needs the real state machine."""
        names = list(Comparison)
        return names.index(self) >= names.index(Comparison.REFERENCE)


Comparisons = collections.Counter[Comparison]

# SPDX-License-Identifier: Apache-2.0
"""Compare the final state of every node with what was acknowledged."""

from collections import defaultdict
from collections.abc import Iterable

from tests.faults.history import Kind, Operation, Result

SHOWS = {
    (Kind.ISSUE, Result.ISSUED): {Result.LIVE, Result.SPENT, Result.DEAD},
    (Kind.CONSUME, Result.ACCEPTED): {Result.SPENT},
    (Kind.REVOKE, Result.REVOKED): {Result.DEAD},
}
"""The states that a code may have on a node after an acknowledged operation."""


def lost(
    acknowledged: Iterable[Operation], reads: Iterable[Operation]
) -> tuple[str, ...]:
    """
    Return each code and node that contradicts an *acknowledged* operation.

    Each of *reads* is from one node alone. Changes that are there without being
    acknowledged are for the checker, which also gets the reads.
    """
    allowed = defaultdict(list)
    for operation in acknowledged:
        if operation.result is None:
            continue
        shown = SHOWS.get((operation.kind, operation.result))
        if shown is not None:
            allowed[operation.code].append(shown)
    return tuple(
        f"{read.code} at {read.node}: {read.result}"
        for read in reads
        if any(read.result not in shown for shown in allowed[read.code])
    )

# SPDX-License-Identifier: Apache-2.0
"""Whether every node holds, in the end, what was acknowledged for ever."""

from collections import defaultdict
from collections.abc import Iterable

from tests.faults.history import Kind, Operation, Result

SHOWS = {
    (Kind.ISSUE, Result.ISSUED): {Result.LIVE, Result.SPENT, Result.DEAD},
    (Kind.CONSUME, Result.ACCEPTED): {Result.SPENT},
    (Kind.REVOKE, Result.REVOKED): {Result.DEAD},
}
"""What a node may hold of a code after something was acknowledged for ever."""


def lost(
    acknowledged: Iterable[Operation], reads: Iterable[Operation]
) -> tuple[str, ...]:
    """
    Say which code is not on which node as clients were *acknowledged*.

    *reads* are of each node alone. What was not acknowledged and is there all the
    same is the checker's business: it is given the reads too.
    """
    promised = defaultdict(list)
    for operation in acknowledged:
        if operation.result is None:
            continue
        shown = SHOWS.get((operation.kind, operation.result))
        if shown is not None:
            promised[operation.code].append(shown)
    return tuple(
        f"{read.code} at {read.node}: {read.result}"
        for read in reads
        if any(read.result not in shown for shown in promised[read.code])
    )

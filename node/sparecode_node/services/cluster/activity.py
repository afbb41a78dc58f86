# SPDX-License-Identifier: Apache-2.0
"""Use case: what happened in the last 24 hours, hour by hour, without any names."""

from dataclasses import dataclass

from sparecode_node.domain.policy import HOUR_MS
from sparecode_node.queries import activity
from sparecode_node.queries.activity import HOURS, Counts, Tally
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.reading import Reader

ROWS_MAX = 50_000
"""Events that one call counts: about 50 ms of one of the node's readers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The last 24 hours, the current one last."""

    hours: tuple[tuple[int, Counts], ...]
    """The beginning of each hour in milliseconds since the Unix epoch, and its counts."""
    from_ms: int
    """Earlier events are not counted yet: a later call counts more of them."""
    complete: bool


class Activity:
    """
    Counts sign-ins and codes. Every node counts for itself, each event once.

    Raises `NotSignedInError`, `NotPermittedError` and `ProposeError`.
    """

    def __init__(self, *, reader: Reader, rows: int = ROWS_MAX) -> None:
        self._reader = reader
        self._rows = rows
        self._tally = Tally()

    async def day(self, context: CallContext, *, stale_ok: bool = False) -> Read[Day]:
        """Return the last 24 hours."""

        async def query(transaction: ReadTransaction, now_ms: int) -> Day:
            tally = await activity.extend(
                transaction, self._tally, now_ms=now_ms, rows=self._rows
            )
            self._tally = tally  # Whole, so calls at the same time count nothing twice.
            first = now_ms // HOUR_MS - HOURS + 1
            return Day(
                hours=tuple(
                    (hour * HOUR_MS, tally.hours.get(hour, Counts()))
                    for hour in range(first, first + HOURS)
                ),
                from_ms=tally.from_ms,
                complete=tally.from_ms == first * HOUR_MS,
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

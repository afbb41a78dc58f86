# SPDX-License-Identifier: Apache-2.0
"""Bulk issue: codes for many tokens in one call."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from sparecode.v1 import emergency_access_pb2 as pb
from sparecode.v1 import types_pb2
from sparecode_client.admin.emergency_access import lifetime_out, saved_in, tokencode_in
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import enum_out
from sparecode_client.errors import Unavailable
from sparecode_client.values.bulk_issue import BulkIssueResult, BulkIssueRow
from sparecode_client.values.emergency_access import RecoveryPolicy

ROWS_MAX = 500
"""Maximum rows of one request."""
ROUNDS_MAX = 3
"""An answer with codes is lost very rarely, and hardly ever twice."""
CODES_WITHHELD = "CODES_WITHHELD"


class BulkIssues(Caller):
    """`EmergencyAccessService.BulkIssueTokencodes`."""

    async def bulk_issue_tokencodes(
        self,
        rows: Sequence[BulkIssueRow],
        *,
        count: int | None = None,
        lifetime: datetime | timedelta | None = None,
        recovery_policy: RecoveryPolicy = RecoveryPolicy.DENY,
        weaken_recovery_policy: bool = False,
        progress: Callable[[BulkIssueResult], object] = lambda _result: None,
        within: timedelta | None = None,
    ) -> tuple[BulkIssueResult, ...]:
        """
        Issue a set of one-time tokencodes for each of many tokens.

        A refused row never stops the others. *progress* gets every result as soon as it
        is known: store the codes then, in case the call is interrupted. Earlier unused
        codes become void. If an answer is lost, its row is issued again, which voids
        the lost codes. *within* limits the time without a result.

        Raises:
            OutcomeUnknown, Unavailable, Overloaded: The call stopped. Issue again for
                the rows without a result: that voids any codes that were lost.
        """
        numbered = dict(enumerate(rows, start=1))
        results: dict[int, BulkIssueResult] = {}

        def add_result(result: BulkIssueResult) -> None:
            results[result.row] = result
            progress(result)

        terms = pb.BulkIssueTokencodesRequest(
            count=count,
            lifetime=lifetime_out(lifetime),
            recovery_policy=enum_out(types_pb2.RecoveryPolicy, recovery_policy),
            weaken_recovery_policy=weaken_recovery_policy,
        )
        for first in range(1, len(rows) + 1, ROWS_MAX):
            batch = {
                number: numbered[number]
                for number in range(first, min(first + ROWS_MAX, len(rows) + 1))
            }
            for _ in range(ROUNDS_MAX):
                batch = await self._round(batch, terms, add_result, within)
                if not batch:
                    break
            for number, row in batch.items():
                add_result(
                    BulkIssueResult(
                        row=number,
                        serial=row.serial,
                        username="",
                        saved=None,
                        codes=(),
                        reason=CODES_WITHHELD,
                        problem="the answer was lost several times: issue again",
                    )
                )
        return tuple(results[number] for number in sorted(results))

    async def _round(
        self,
        rows: Mapping[int, BulkIssueRow],
        terms: pb.BulkIssueTokencodesRequest,
        add_result: Callable[[BulkIssueResult], object],
        within: timedelta | None,
    ) -> dict[int, BulkIssueRow]:
        """Issue under one request id; return the rows whose codes were lost."""
        pending, withheld = dict(rows), dict[int, BulkIssueRow]()
        request_id = new_request_id()

        def request() -> pb.BulkIssueTokencodesRequest:
            batch = pb.BulkIssueTokencodesRequest(request_id=request_id)
            batch.MergeFrom(terms)
            for number, row in pending.items():
                batch.rows.add(row=number, serial=row.serial, count=row.count)
            return batch

        def take(answer: pb.BulkIssueTokencodesResponse) -> bool:
            row = pending.pop(answer.row, None)
            if row is None:
                return False
            if answer.codes_withheld:
                withheld[answer.row] = row
            else:
                add_result(result_in(answer))
            return True

        while pending:
            pending_before = len(pending)
            await self._client.stream_out(
                lambda node: node.emergency_access.BulkIssueTokencodes,
                request,
                take,
                request_id=request_id,
                within=within,
            )
            if len(pending) == pending_before:
                raise Unavailable("NO_ANSWER", "the node sent no results")
        return withheld


def result_in(answer: pb.BulkIssueTokencodesResponse) -> BulkIssueResult:
    """Convert the result of a row."""
    return BulkIssueResult(
        row=answer.row,
        serial=answer.serial,
        username=answer.username,
        saved=saved_in(answer.saved) if answer.HasField("saved") else None,
        codes=tuple(tokencode_in(code) for code in answer.codes),
        reason=answer.reason,
        problem=answer.problem,
    )

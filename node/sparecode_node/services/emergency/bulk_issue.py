# SPDX-License-Identifier: Apache-2.0
"""Use case: emergency codes for many tokens at once (I12)."""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import AdministratorName, TokenSerial
from sparecode_node.queries import policy as policies
from sparecode_node.queries import tokens
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services import fields
from sparecode_node.services.access.authorization import Session
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.emergency import issuing
from sparecode_node.services.emergency.issuing import CodeDrawer, SetTerms, ShownCode
from sparecode_node.services.errors import (
    REFUSES_ALL_ROWS,
    ApprovalNeededError,
    InvalidFieldError,
    NotPermittedError,
    NotSignedInError,
    Refused,
)
from sparecode_node.services.idempotency import content_of, row_context
from sparecode_node.services.load.pacing import Pace, Turn
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.secrets.kdf import Kdf
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.emergency_access import (
    IssueTokencodesInBulk,
    RequestBulkIssue,
)
from sparecode_node.statemachine.results import EmergencyAccessSaved

ROWS_MAX = 500
"""In one call: they fit in a message, and a person can check them."""
BULKS_MAX = 4
"""At once on one node, and one for each administrator: others issue codes too."""
ROW_S = 1.0
"""With less time left no row is started: its codes would be lost with the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRow:
    """One token of a bulk issue."""

    row: int
    serial: str
    count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """The result of one row."""

    row: int
    serial: str
    username: str = ""
    saved: EmergencyAccessSaved | None = None
    """None: refused."""
    codes: tuple[ShownCode, ...] = ()
    withheld: bool = False
    """An earlier call with this id issued the set; its codes cannot be shown again (I9)."""
    reason: str = ""
    problem: str = ""


class BulkIssue:
    """
    Issues a set for each of many tokens, one after the other.

    All bulk issues of this node share turns: one row is hashed and committed, then
    comes a rest. So they hold at most one set's worth of the lane for issuing, and
    nothing of the lane for authentication, whose answers take little longer (I12).
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        rates: Rates,
        entropy: Entropy,
        pace: Pace,
    ) -> None:
        self._proposer = proposer
        self._state = state
        self._drawer = CodeDrawer(
            sealing=sealing, kdf=kdf, rates=rates, entropy=entropy
        )
        self._entropy = entropy
        self._pace = pace
        self._running: set[AdministratorName] = set()

    async def issue(
        self,
        context: CallContext,
        *,
        rows: Sequence[BulkRow],
        count: int | None,
        terms: SetTerms,
    ) -> AsyncGenerator[BulkResult, None]:
        """
        Return the results, each as soon as its row is decided.

        They end early, without an error, if too little of the caller's time is left
        for another row. Every row has its own request id: a retry of decided rows gets
        the same results without their codes.
        Raises `InvalidFieldError`, `NotSignedInError`, `NotPermittedError`,
        `Refused` and `ProposeError`.
        """
        _check(rows, count)
        terms.check()
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        await self._announce(context, session, deadline, rows)

        async def results() -> AsyncGenerator[BulkResult, None]:
            # Only when the results are read: an unread generator never runs its finally.
            self._enter(session.administrator)
            try:
                for row in rows:
                    async with self._pace.turn() as turn:
                        if row is not rows[0] and not deadline.allows(ROW_S):
                            return
                        result = await self._issue_row(
                            context, session, deadline, row, count, terms, turn
                        )
                    yield result
            finally:
                self._running.discard(session.administrator)

        return results()

    async def _announce(
        self,
        context: CallContext,
        session: Session,
        deadline: Deadline,
        rows: Sequence[BulkRow],
    ) -> None:
        """Announce the serials: another administrator may have to approve them (P3)."""
        # A retry may hold only the remaining rows, so the announcement has its own id.
        serials = tuple(TokenSerial(row.serial) for row in rows)
        announcement = replace(
            context, request_id=self._entropy.uuid(), content=content_of(serials)
        )
        await self._proposer.propose(
            announcement,
            session,
            deadline,
            RequestBulkIssue(serials=serials),
        )

    def _enter(self, administrator: AdministratorName) -> None:
        if administrator in self._running or len(self._running) >= BULKS_MAX:
            raise OverloadedError("too many bulk issues at once; try again later")
        self._running.add(administrator)

    async def _issue_row(
        self,
        context: CallContext,
        session: Session,
        deadline: Deadline,
        row: BulkRow,
        count: int | None,
        terms: SetTerms,
        turn: Turn,
    ) -> BulkResult:
        serial = TokenSerial(row.serial)
        requested = count if row.count is None else row.count
        result = BulkResult(row=row.row, serial=row.serial)
        drawn = self._drawer.nothing()

        async def prepare() -> IssueTokencodesInBulk:
            nonlocal drawn, result
            async with self._state.transaction() as transaction:
                policy = await policies.current(transaction)
                token_and_user = await tokens.find_with_user(transaction, serial)
            user = token_and_user[1] if token_and_user else None
            number = issuing.count_of(requested, policy)
            if user is not None:
                result = replace(result, username=user.username)
                with turn.aside():  # Hashing yields by the priority of its lane.
                    drawn = await self._drawer.draw(
                        user,
                        policy,
                        number,
                        deadline,
                        administrator=session.administrator,
                    )
            return terms.issuing_in_bulk(serial, user, policy, drawn)

        call = row_context(
            context, row.row, {"serial": row.serial, "count": requested, "terms": terms}
        )
        try:
            saved = await self._proposer.propose_prepared(
                call, session, deadline, prepare
            )
        except InvalidFieldError as error:
            return replace(result, reason="FIELD", problem=str(error))
        except (NotSignedInError, NotPermittedError, ApprovalNeededError):
            raise
        except Refused as refused:
            reason, detail = refused.rejected.reason, refused.rejected.detail
            if reason in REFUSES_ALL_ROWS:
                raise
            return replace(result, reason=reason.name, problem=detail)
        if not isinstance(saved, EmergencyAccessSaved):
            raise TypeError(f"unexpected result: {type(saved).__name__}")
        withheld = saved.set_id != drawn.set_id
        return replace(
            result,
            saved=saved,
            codes=() if withheld else drawn.shown,
            withheld=withheld,
        )


def _check(rows: Sequence[BulkRow], count: int | None) -> None:
    """Check the form of a whole bulk. Raises `InvalidFieldError`."""
    if not 1 <= len(rows) <= ROWS_MAX:
        raise InvalidFieldError("rows", f"must be 1 to {ROWS_MAX}, not {len(rows)}")
    for at, row in enumerate(rows):
        fields.serial(row.serial, f"rows[{at}].serial")
        if row.row < 1:
            raise InvalidFieldError(f"rows[{at}].row", "must be 1 or more")
        if row.count is not None and row.count < 1:
            raise InvalidFieldError(f"rows[{at}].count", "must be 1 or more")
    if count is not None and count < 1:
        raise InvalidFieldError("count", "must be 1 or more")
    for field, values in (
        ("row", Counter(str(row.row) for row in rows)),
        ("serial", Counter(row.serial for row in rows)),
    ):
        [(value, times)] = values.most_common(1)
        if times > 1:
            raise InvalidFieldError("rows", f"{field} {value} is listed {times} times")

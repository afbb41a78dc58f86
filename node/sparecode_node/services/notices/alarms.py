# SPDX-License-Identifier: Apache-2.0
"""
Use cases: a user says "this was not me" (N9).

Each notice to a user carries links to a page of the consoles. The page asks for a click,
because gateways for mail read links. The click tells administrators, and nothing else
unless the policy says so.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from sparecode_node.domain.alarms import LINK_MS
from sparecode_node.domain.ids import NodeId, UserId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.personal_kinds import KINDS_OF_USERS
from sparecode_node.queries import alarms
from sparecode_node.queries.alarms import AlarmView
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import CallContext, Deadline, Read
from sparecode_node.services.errors import refusal
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.alarm_seals import AlarmLink, AlarmSeals
from sparecode_node.statemachine.commands.alarms import RaiseAlarm

PAGE = "/not-me"
"""The page of a link, on every node's console."""
LINKS_MAX = 2
"""Consoles that a mail names: one may be down."""


class AlarmLinks:
    """Writes the links of notices, to the own console first."""

    def __init__(
        self, seals: AlarmSeals, consoles: Mapping[str, str], node_id: NodeId
    ) -> None:
        self._seals = seals
        self._consoles = tuple(
            address
            for _, address in sorted(
                consoles.items(), key=lambda each: each[0] != node_id
            )
        )[:LINKS_MAX]

    def of(self, notice: StoredNotice) -> Sequence[str]:
        """
        Return the links of a notice; empty: it has none.

        Only users have them. Managers, administrators and those whose user is deleted
        talk to the help desk or to a super administrator.
        """
        personal = notice.personal
        if (
            personal is None
            or personal.to_manager
            or not personal.user_id
            or personal.kind not in KINDS_OF_USERS
        ):
            return ()
        token = self._seals.seal_link(
            AlarmLink(
                user_id=UserId(personal.user_id),
                notice_id=notice.notice_id,
                kind=personal.kind,
                told_at_ms=notice.event.at_ms,
            )
        )
        query = {"token": token}
        if personal.language:
            query["language"] = personal.language
        return [
            f"{each.rstrip('/')}{PAGE}?{urlencode(query)}" for each in self._consoles
        ]


class Alarms:
    """Raises alarms, and tells of them."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        proposer: Proposer,
        reader: Reader,
        state: LocalState,
        seals: AlarmSeals,
        rates: Rates,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._replicator = replicator
        self._proposer = proposer
        self._reader = reader
        self._state = state
        self._seals = seals
        self._rates = rates
        self._clock = clock
        self._entropy = entropy

    async def raise_alarm(self, context: CallContext, token: str) -> bool:
        """
        Raise the alarm of a link, once; a repeat changes nothing, and gets the same answer.

        False: the link is none of this cluster, its time has passed, or its user is
        deleted. Such a link writes nothing, nor does a known alarm. Raises `RateError`,
        `Refused` and `ProposeError`.
        """
        self._rates.stranger(context.peer)
        link = self._seals.unseal_link(token)
        if link is None or self._clock.now_ms() >= link.told_at_ms + LINK_MS:
            return False
        async with self._state.transaction() as transaction:
            is_new = await alarms.may_raise(transaction, link.user_id, link.notice_id)
        if not is_new:
            return is_new is not None
        result = await self._replicator.propose(
            self._proposer.node_proposal(
                RaiseAlarm(
                    user_id=link.user_id,
                    notice_id=link.notice_id,
                    kind=link.kind,
                    told_at_ms=link.told_at_ms,
                ),
                self._entropy.uuid(),
            ),
            timeout_s=Deadline.of(context, self._clock).left_s(),
        )
        if not isinstance(result, Rejected):
            return True
        # Another node was told first, or the user was deleted at the same time.
        if result.reason is Reason.STALE_PARAMETERS:
            return True
        raise refusal(result)

    async def recent(
        self,
        context: CallContext,
        username: str = "",
        *,
        stale_ok: bool = False,
    ) -> Read[tuple[AlarmView, ...]]:
        """Return the last days' alarms of a user, or the newest of each; newest first."""

        async def query(
            transaction: ReadTransaction, now_ms: int
        ) -> tuple[AlarmView, ...]:
            return await alarms.recent(transaction, now_ms, username)

        return await self._reader.read(context, query, stale_ok=stale_ok)

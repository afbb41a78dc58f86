# SPDX-License-Identifier: Apache-2.0
"""
Use case: why a user was refused, and what stands in the way now.

It shows one user's attempts without the audit log, so it has a permission of its own.
Agents never learn any of it (A6).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.administrators import Role, may
from sparecode_node.domain.blockers import Blocker
from sparecode_node.domain.explanations import BLOCKING, EXPLANATIONS, OVER
from sparecode_node.domain.lockout import Factor
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.users import fold
from sparecode_node.queries import attempts, blockers
from sparecode_node.queries.attempts import ACCEPTED, Attempt
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.services import fields
from sparecode_node.services.access.authorization import NEEDS, Session
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.errors import Refused
from sparecode_node.services.reading import Reader

METHOD = "UserService/ExplainUser"
_CODES_OPEN = "Emergency codes, if the user has any, are not locked."
"""Tokencodes that are locked are not the emergency access tokencodes."""
ATTEMPTS_MAX = 20

_RIGHT_SO_FAR = {
    ACCEPTED: "Accepted.",
    "next_tokencode_required": "Right so far: the next tokencode was asked for.",
    "new_pin_required": "Right so far: a new PIN was asked for.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedBlocker:
    """What stands in the way of a user's passcodes now; see `Blocker`."""

    reason: str
    words: str
    next_step: str
    """What the calling administrator can do, or whom to ask."""
    serial: str
    factor: str
    """Empty: both factors."""
    ends_at_ms: int | None
    since_ms: int | None
    """The end of a token that has expired."""
    failures: int
    agents: tuple[str, ...]

    @property
    def stops_codes(self) -> bool:
        """Whether no agent accepts an emergency code now."""
        return not self.agents and self.factor != Factor.TOKEN


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedAttempt:
    """A decision on one passcode, in words; see `Attempt`."""

    at_ms: int
    agent: str
    node_id: str
    client_address: str
    resource: str
    serial: str
    outcome: str
    reason: str
    words: str
    next_step: str
    """Empty: nothing is to be done."""
    authentication_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserExplanation:
    """What a help desk needs when a user calls: obstacles first, then what happened."""

    username: str
    """Empty: the token is not assigned."""
    blockers: tuple[ExplainedBlocker, ...]
    attempts: tuple[ExplainedAttempt, ...]
    """Newest first, at most `ATTEMPTS_MAX`."""
    older_attempts_missing: bool = False
    """This node is still fetching older events: there may be older attempts."""


class Explanations:
    """
    Explains refusals to administrators.

    Every method raises as `Reader.read`, and `InvalidFieldError` and `Refused`.
    """

    def __init__(self, *, reader: Reader) -> None:
        self._reader = reader

    async def explain(
        self, context: CallContext, username: str, *, stale_ok: bool = False
    ) -> Read[UserExplanation]:
        """Return the blockers and the latest attempts of a user (`USER_UNKNOWN`)."""
        name_key = fold(fields.username(username))

        async def query(
            transaction: ReadTransaction, now_ms: int, session: Session
        ) -> UserExplanation:
            user = await transaction.one(
                "SELECT user_id, username FROM users WHERE name_key = :name_key",
                name_key=name_key,
            )
            if user is None:
                raise Refused(Rejected(Reason.USER_UNKNOWN, f"no user {username}"))
            return await _explained(
                transaction,
                user["username"],
                await blockers.of_user(transaction, user["user_id"], now_ms=now_ms),
                session.role,
            )

        return await self._reader.read_for(context, query, stale_ok=stale_ok)

    async def explain_token(
        self, context: CallContext, serial: str, *, stale_ok: bool = False
    ) -> Read[UserExplanation]:
        """Return the blockers of a token and its user, with the user's attempts."""
        key = fields.serial(serial)

        async def query(
            transaction: ReadTransaction, now_ms: int, session: Session
        ) -> UserExplanation:
            found = await blockers.of_token_and_user(transaction, key, now_ms=now_ms)
            if found is None:
                raise Refused(
                    Rejected(Reason.TOKEN_UNKNOWN, f"there is no token {key}", "serial")
                )
            user = await transaction.one(
                "SELECT username FROM users JOIN tokens USING (user_id) "
                "WHERE serial = :serial",
                serial=key,
            )
            username = user["username"] if user else ""
            return await _explained(transaction, username, found, session.role)

        return await self._reader.read_for(context, query, stale_ok=stale_ok)


async def _explained(
    transaction: ReadTransaction,
    username: str,
    standing: Sequence[Blocker],
    role: Role,
) -> UserExplanation:
    latest = attempts.Latest(items=(), older_missing=False)
    if username:
        latest = await attempts.latest(transaction, fold(username), rows=ATTEMPTS_MAX)
    return UserExplanation(
        username=username,
        blockers=_blockers(standing, role),
        attempts=tuple(_attempt(each, standing, role) for each in latest.items),
        older_attempts_missing=latest.older_missing,
    )


def _blockers(standing: Sequence[Blocker], role: Role) -> tuple[ExplainedBlocker, ...]:
    explained = tuple(_blocker(each, role) for each in standing)
    if any(each.stops_codes for each in explained):
        return explained
    return tuple(
        replace(each, words=f"{each.words} {_CODES_OPEN}")
        if each.reason == Reason.LOCKED
        else each
        for each in explained
    )


def _blocker(blocker: Blocker, role: Role) -> ExplainedBlocker:
    return ExplainedBlocker(
        reason=blocker.reason.value,
        words=blocker.words,
        next_step=_next_step(blocker.reason, role),
        serial=blocker.serial,
        factor=blocker.factor.value if blocker.factor else "",
        ends_at_ms=blocker.until_ms,
        since_ms=blocker.since_ms,
        failures=blocker.failures,
        agents=blocker.agents,
    )


def _attempt(
    attempt: Attempt, standing: Sequence[Blocker], role: Role
) -> ExplainedAttempt:
    if attempt.reason:
        words, next_step = _refusal(attempt, standing, role)
    else:
        words, next_step = _RIGHT_SO_FAR.get(attempt.outcome, ""), ""
    return ExplainedAttempt(
        at_ms=attempt.at_ms,
        agent=attempt.agent,
        node_id=attempt.node_id,
        client_address=attempt.client_address,
        resource=attempt.resource,
        serial=attempt.serial,
        outcome=attempt.outcome,
        reason=attempt.reason,
        words=words,
        next_step=next_step,
        authentication_id=attempt.authentication_id,
    )


def _refusal(
    attempt: Attempt, standing: Sequence[Blocker], role: Role
) -> tuple[str, str]:
    """Return the words and the next step of a refusal; what is over needs no step."""
    reason = Reason(attempt.reason)
    stands = any(
        each.reason is reason and each.serial in ("", attempt.serial)
        for each in standing
    )
    over = reason in BLOCKING and not stands
    return EXPLANATIONS[reason].words, OVER if over else _next_step(reason, role)


def _next_step(reason: Reason, role: Role) -> str:
    """Return advice that the role can follow: for other steps it names whom to ask."""
    explanation, step = EXPLANATIONS[reason], ""
    if explanation.step:
        allowed = may(role, NEEDS[explanation.method])
        step = (
            f"{explanation.step[0].upper()}{explanation.step[1:]}."
            if allowed
            else f"Ask a super administrator to {explanation.step}."
        )
    return " ".join(filter(None, (explanation.advice, step)))

# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of a user's passcodes, from the state of this node."""

from sparecode_node.domain.blockers import Blocker, of_lockout, of_token
from sparecode_node.domain.emergency_access import (
    CodeState,
    EmergencyCode,
    EmergencyCodeSet,
    Use,
)
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.lockout import Factor
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.tokens import Token
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables


async def of_user(
    transaction: ReadTransaction, user_id: str, *, now_ms: int
) -> tuple[Blocker, ...]:
    """Return the blockers of a user: of the user, of each token, and of agents."""
    tokens = await _tokens(transaction, "user_id", user_id)
    own = await _of_user_alone(transaction, user_id, now_ms)
    found = [
        blocker
        for token in tokens
        for blocker in await _of_token(transaction, token, now_ms)
    ]
    if not tokens:
        found.append(Blocker(reason=Reason.TOKEN_NOT_ASSIGNED))
    return (*own, *found, *await _of_agents(transaction, user_id))


async def of_token_and_user(
    transaction: ReadTransaction, serial: TokenSerial, *, now_ms: int
) -> tuple[Blocker, ...] | None:
    """Return the blockers of one token and of its user; None: there is no such token."""
    for token in await _tokens(transaction, "serial", serial):
        found = await _of_token(transaction, token, now_ms)
        if token.user_id is None:
            return found
        return (
            *await _of_user_alone(transaction, token.user_id, now_ms),
            *found,
            *await _of_agents(transaction, token.user_id),
        )
    return None


async def _tokens(
    transaction: ReadTransaction, column: str, value: str
) -> tuple[Token, ...]:
    rows = await transaction.all(
        f"SELECT {token_tables.TOKEN_COLUMNS} FROM tokens WHERE {column} = :value "
        "ORDER BY serial",
        value=value,
    )
    return tuple(token_tables.token_of(tuple(row)) for row in rows)


async def _of_user_alone(
    transaction: ReadTransaction, user_id: str, now_ms: int
) -> tuple[Blocker, ...]:
    user = await transaction.one(
        "SELECT enabled FROM users WHERE user_id = :user_id", user_id=user_id
    )
    disabled = user is not None and not user["enabled"]
    rows = await transaction.all(
        "SELECT factor, failures, rung, blocked_until_ms, failed_at_ms, off "
        "FROM lockouts WHERE user_id = :user_id ORDER BY factor",
        user_id=user_id,
    )
    locks = (
        of_lockout(Factor(row[0]), user_tables.lockout_of(tuple(row)[1:]), now_ms)
        for row in rows
    )
    return (
        *([Blocker(reason=Reason.USER_DISABLED)] if disabled else []),
        *filter(None, locks),
    )


async def _of_token(
    transaction: ReadTransaction, token: Token, now_ms: int
) -> tuple[Blocker, ...]:
    sets = await _sets(transaction, token.serial) if token.lost else ()
    return of_token(token, sets, now_ms)


async def _of_agents(transaction: ReadTransaction, user_id: str) -> tuple[Blocker, ...]:
    """Return the blocker of the enabled agents whose allow lists exclude the user."""
    rows = await transaction.all(
        """
        SELECT name FROM agents WHERE restricted AND enabled
            AND NOT EXISTS (
                SELECT 1 FROM agent_users
                WHERE agent_users.identity = agents.identity AND user_id = :user_id
            )
            AND NOT EXISTS (
                SELECT 1 FROM agent_groups JOIN user_groups USING (group_key)
                WHERE agent_groups.identity = agents.identity AND user_id = :user_id
            )
        ORDER BY name_key
        """,
        user_id=user_id,
    )
    names = tuple(str(row["name"]) for row in rows)
    return (Blocker(reason=Reason.USER_NOT_ALLOWED, agents=names),) if names else ()


async def _sets(
    transaction: ReadTransaction, serial: TokenSerial
) -> tuple[EmergencyCodeSet, ...]:
    """Return the sets of a token, newest first, without their verifiers."""
    codes: dict[str, list[EmergencyCode]] = {}
    for row in await transaction.all(
        """
        SELECT set_id, ordinal, state, used_at_ms, used_agent, used_node_id, used_index
        FROM codes JOIN code_sets USING (set_id)
        WHERE serial = :serial ORDER BY ordinal
        """,
        serial=serial,
    ):
        use = row["used_at_ms"] and Use(
            at_ms=row["used_at_ms"],
            agent=row["used_agent"],
            node_id=row["used_node_id"],
            index=row["used_index"],
        )
        codes.setdefault(row["set_id"], []).append(
            EmergencyCode(
                ordinal=row["ordinal"],
                verifier=b"",
                state=CodeState(row["state"]),
                use=use or None,
            )
        )
    rows = await transaction.all(
        "SELECT * FROM code_sets WHERE serial = :serial ORDER BY number DESC",
        serial=serial,
    )
    return tuple(
        EmergencyCodeSet(
            set_id=row["set_id"],
            serial=serial,
            key_id=row["key_id"],
            code_length=row["code_length"],
            issuer=row["issuer"],
            node_id=row["node_id"],
            issued_at_ms=row["issued_at_ms"],
            issued_index=row["issued_index"],
            ends_at_ms=row["ends_at_ms"],
            voided=bool(row["voided"]),
            fixed=bool(row["fixed"]),
            codes=tuple(codes.get(row["set_id"], ())),
        )
        for row in rows
    )

# SPDX-License-Identifier: Apache-2.0
"""The live codes that a change of the policy weighs."""

from collections.abc import Awaitable, Callable, Mapping

from sparecode_node.domain.policy_changes import LiveCodes, merged
from sparecode_node.queries import cluster, policy
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.commands.policy import CountedCodes
from sparecode_node.statemachine.feature_level import COUNTED_CODES
from sparecode_node.statemachine.handlers.policy import weighs_codes
from sparecode_node.statemachine.tables.live_codes import (
    CODES_OF_NEW_SETS,
    LAST_SET,
    LIVE_CODES_OF_SOME,
    SOME_TOKENS,
    live_codes,
)
from sparecode_node.statemachine.tables.moves import ANY_ARRIVING

TOKENS_AT_ONCE = 1_000
"""With ten codes each, they take a few milliseconds."""


async def are_weighed(
    transaction: ReadTransaction, *, version: int, values: Mapping[str, object]
) -> bool:
    """
    Return whether a change of this version of the policy needs a count of live codes.

    Below feature level 2 apply counts them. If the policy has another version here, apply
    refuses the change, or this node's state is behind.
    """
    level = await cluster.feature_level(transaction)
    current = await policy.current(transaction)
    return (
        level >= COUNTED_CODES
        and current.version == version
        and weighs_codes(current, values, level)
    )


async def arrive(transaction: ReadTransaction) -> bool:
    """Return whether a move may bring more codes, also into sets that are here."""
    return await transaction.one(ANY_ARRIVING) is not None


async def count(
    transaction: ReadTransaction, *, rest: Callable[[], Awaitable[object]]
) -> CountedCodes:
    """
    Count all live codes: 0.3 s of a processor for a million.

    Calls *rest* after each thousand tokens.
    By the log's time: a code that is live when the change is applied must not be missing.
    """
    last_set, now_ms = await _last_set(transaction), await cluster.now_ms(transaction)
    alphabet = (await policy.current(transaction)).code_alphabet
    groups: tuple[LiveCodes, ...] = ()
    after = ""
    while last := await _last_of_next(transaction, after):
        rows = await transaction.all(
            LIVE_CODES_OF_SOME, now=now_ms, after=after, last=last
        )
        groups = merged((*groups, *live_codes(rows)), alphabet)
        after = last
        await rest()
    return CountedCodes.of(last_set, groups)


async def with_newer(
    transaction: ReadTransaction, counted: CountedCodes
) -> CountedCodes:
    """
    Return a count with the tokens that got a set since its beginning.

    A count may take minutes, and apply adds only a thousand sets.
    """
    last_set = await _last_set(transaction)
    if last_set == counted.last_set:
        return counted
    rows = await transaction.all(
        CODES_OF_NEW_SETS,
        now=await cluster.now_ms(transaction),
        after=counted.last_set,
    )
    alphabet = (await policy.current(transaction)).code_alphabet
    return CountedCodes.of(
        last_set, merged((*counted.live, *live_codes(rows)), alphabet)
    )


async def _last_set(transaction: ReadTransaction) -> int:
    newest = await transaction.one(LAST_SET)
    return newest["number"] if newest else 0


async def _last_of_next(transaction: ReadTransaction, after: str) -> str | None:
    """Return the serial of the last token of the next part, None if there is none."""
    some = await transaction.one(SOME_TOKENS, after=after, most=TOKENS_AT_ONCE)
    return some["last"] if some else None

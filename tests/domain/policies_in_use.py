# SPDX-License-Identifier: Apache-2.0
"""What exists under a policy: tokens and live codes, as tests describe them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.policy_changes import LiveCodes

POLICY = Policy()


@dataclass(frozen=True, kw_only=True)
class InUse:
    """Everything is known in advance."""

    live: Sequence[LiveCodes] = ()
    tokens_max: int | None = None
    without_pin: int = 0
    lettered_pins: Sequence[TokenSerial] = ()


NOTHING = InUse()


def alike(
    lengths: dict[int, int],
    rule: PinRule = PinRule.PREPENDED,
    *,
    first: str = "1",
    tokens: int = 1,
) -> LiveCodes:
    """Return tokens that have the same number of live codes each."""
    return LiveCodes.alike(lengths, rule, tokens, TokenSerial(first))

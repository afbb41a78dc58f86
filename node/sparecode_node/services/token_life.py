# SPDX-License-Identifier: Apache-2.0
"""Use cases: what happens to a token between assignment and end (K, R3)."""

from sparecode_node.services import fields
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.proposing import Proposer
from sparecode_node.statemachine.commands import (
    ClearPin,
    DeleteToken,
    DisableToken,
    EnableToken,
    UnassignToken,
    UpdateToken,
)
from sparecode_node.statemachine.results import Applied


class TokenLife:
    """
    Changes tokens that are there.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` (`TOKEN_UNKNOWN` and the like) and
    `ProposeError`.
    """

    def __init__(self, *, proposer: Proposer) -> None:
        self._proposer = proposer

    async def unassign(self, context: CallContext, *, serial: str) -> Applied:
        """Take a token from its user; its PIN is gone and its codes are void (R3)."""
        command = UnassignToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command, {"serial": serial})

    async def enable(self, context: CallContext, *, serial: str) -> Applied:
        """Let a token be used."""
        command = EnableToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command, {"serial": serial})

    async def disable(self, context: CallContext, *, serial: str) -> Applied:
        """Refuse a token from now on; its codes are void (R3)."""
        command = DisableToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command, {"serial": serial})

    async def update(
        self,
        context: CallContext,
        *,
        serial: str,
        expires_at_ms: int | None,
        never_expires: bool,
    ) -> Applied:
        """Change when a token expires: one of the two is given."""
        if (expires_at_ms is None) is not never_expires:
            raise InvalidFieldError(
                "expire_time", "give a time, or say never_expires: one of the two"
            )
        command = UpdateToken(
            serial=fields.serial(serial),
            expires_at_ms=fields.time_ms("expire_time", expires_at_ms),
            never_expires=never_expires,
        )
        said = {
            "serial": serial,
            "expire_time": expires_at_ms,
            "never_expires": never_expires,
        }
        return await self._proposer.change(context, command, said)

    async def delete(self, context: CallContext, *, serial: str) -> Applied:
        """Delete a token; its codes are void (R3)."""
        command = DeleteToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command, {"serial": serial})

    async def clear_pin(self, context: CallContext, *, serial: str) -> Applied:
        """Clear the PIN of a token: nothing is accepted until there is another (A2)."""
        command = ClearPin(serial=fields.serial(serial))
        return await self._proposer.change(context, command, {"serial": serial})

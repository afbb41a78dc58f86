# SPDX-License-Identifier: Apache-2.0
"""
What privacyIDEA's plug-ins may do besides, as the node's operator has written it.

Most of them can show neither a certificate nor a key, so the address of the connection
stands for the agent: whether that address can be trusted depends on the node's network,
and so it is in `node.toml` and not in the replicated state. The agent itself is in the
state, with its allow list, its rates and its audit log.

They have no request ids either. A plug-in whose calls are sent again, by its HTTP library
or to the next node, can have ids made from what the call says, as a RADIUS client has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sparecode_node.domain.ids import AgentIdentity, RequestId
from sparecode_node.domain.networks import ByNetwork
from sparecode_node.services.authentication.first_step import Authentication
from sparecode_node.services.context import CallContext
from sparecode_node.services.secrets.radius_seals import RadiusSeals

REPEATED_MS = 30_000
"""How long a call with the same fields can be a repeated one, as over RADIUS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """The agents whose plug-ins the operator has listed."""

    by_network: ByNetwork[AgentIdentity] = field(default_factory=ByNetwork)
    """The agents that need no credential from these networks."""
    repeating: frozenset[AgentIdentity] = frozenset()
    """The agents whose equal calls are one request for 30 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Makes request ids from the fields of a call, equal on every node (D3)."""

    authentication: Authentication
    seals: RadiusSeals

    async def request_id(
        self, context: CallContext, identity: AgentIdentity, parts: Sequence[bytes]
    ) -> RequestId | None:
        """
        Return the id of a call with these fields; None: it is not a repeated one.

        *parts* hold the passcode, so the keys of the ring make the ids. A call that was
        decided more than 30 s ago is not repeated. Raises `ProposeError`.
        """
        all_parts = [b"privacyidea", identity.encode(), context.peer.encode(), *parts]
        ids = self.seals.session_ids(
            b"".join(len(part).to_bytes(4) + part for part in all_parts)
        )
        ages = await self.authentication.decided_ms_ago(context, ids)
        for each in ids:
            if each in ages:
                return each if ages[each] <= REPEATED_MS else None
        return ids[0]

# SPDX-License-Identifier: Apache-2.0
"""The client of an authentication agent whose users are in several clusters."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self, TypeVar

from sparecode_client.agent import AsyncAgent
from sparecode_client.clusters.routes import SLOT_MOVED, Route, Routes
from sparecode_client.clusters.slots import ClusterAddress, SlotTable
from sparecode_client.connection.attempts import Deadline
from sparecode_client.connection.channels import PathLike
from sparecode_client.connection.client import DEFAULT_TIMEOUT, new_request_id
from sparecode_client.errors import (
    InvalidArgument,
    NodeFailed,
    OutcomeUnknown,
    Refused,
)
from sparecode_client.values.authentication import Authentication

Connect = Callable[[ClusterAddress], AsyncAgent]
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Connection:
    """The client of one cluster."""

    agent: AsyncAgent
    calls: int = 0
    """Calls that wait for their answers."""


class AsyncRoutedAgent:
    """
    An authentication agent that asks the cluster which has the user.

    *table* is the file with the slot table (docs/clusters.md). It is read again every
    five seconds, and when a cluster says that the slot of a user has moved away. A table
    that is wrong, or names a file that is, changes nothing: the present one stays in use.

    Raises:
        OSError: A file cannot be read.
        ValueError: The table, an address or a file is wrong.
    """

    def __init__(
        self, table: PathLike, *, timeout: timedelta = DEFAULT_TIMEOUT
    ) -> None:
        def connect(cluster: ClusterAddress) -> AsyncAgent:
            return AsyncAgent(
                cluster.nodes,
                ca=cluster.ca,
                certificate=cluster.certificate,
                key=cluster.key,
                timeout=timeout,
            )

        self._begin(lambda: SlotTable.read(table), connect, timeout)

    @classmethod
    def over(
        cls,
        read: Callable[[], SlotTable],
        connect: Connect,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> Self:
        """Return an agent that reads its table, and reaches clusters, by these functions."""
        agent = object.__new__(cls)
        agent._begin(read, connect, timeout)
        return agent

    def _begin(
        self, read: Callable[[], SlotTable], connect: Connect, timeout: timedelta
    ) -> None:
        self._connect = connect
        self._timeout = timeout
        self._connections: dict[ClusterAddress, _Connection] = {}
        self._retired: set[_Connection] = set()
        """Connections to former addresses, with calls in progress."""
        self._closing: set[asyncio.Task[None]] = set()
        # Wrong files are reported now, and not at the first sign-in.
        self._routes = Routes(
            read,
            now_s=lambda: asyncio.get_running_loop().time(),
            connect=self._connect_all,
        )

    async def authenticate(
        self,
        username: str,
        passcode: str,
        *,
        client_address: str = "",
        resource: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
        cluster: str = "",
    ) -> Authentication:
        """
        Return the decision of the cluster that has the user: see `Agent.authenticate`.

        An attempt goes to a second cluster only if the first one has said that it has
        not applied it and never will. A retry after `OutcomeUnknown` goes to the same
        cluster. If another process retries, it passes the error's `cluster`, too.

        Raises:
            OutcomeUnknown: Perhaps a code was spent. Call again with the error's
                `request_id` within ten minutes.
            Unavailable: `SLOT_MOVED`: the slot table is older than the last move.
                `SLOT_MOVING`: the user's slot is on its way. Try again.
            SparecodeError: There is no decision. The passcode was not accepted (A7).
        """
        request_id = request_id or new_request_id()
        route = self._routes.begin(username, request_id, cluster=cluster)

        def ask(agent: AsyncAgent, left: timedelta) -> Awaitable[Authentication]:
            return agent.authenticate(
                username,
                passcode,
                client_address=client_address,
                resource=resource,
                request_id=request_id,
                within=left,
            )

        deadline = self._deadline(within)
        while True:
            try:
                decided = await self._ask(route, ask, deadline)
            except Refused as error:
                if error.reason != SLOT_MOVED:
                    raise
                route.on_moved(error)
            else:
                return replace(decided, cluster=route.cluster.name)

    async def continue_authentication(
        self,
        authentication: Authentication,
        next_tokencode: str,
        *,
        new_pin: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Authentication:
        """
        Return the decision on the next step: see `Agent.continue_authentication`.

        Only the cluster of the first step can decide it. If the user's slot moves in
        between, the user starts over: `Refused` with the reason `SLOT_MOVED`.

        Raises:
            InvalidArgument: Also if *authentication* is not from this class.
            OutcomeUnknown: Call again with the error's `request_id` within ten minutes.
            SparecodeError: There is no decision. The user was not accepted (A7).
        """
        cluster = self._routes.table.clusters.get(authentication.cluster)
        if cluster is None:
            raise InvalidArgument(
                "authentication", "is of no cluster that the slot table names"
            )
        request_id = request_id or new_request_id()
        route = Route(self._routes, "", request_id, cluster)

        def ask(agent: AsyncAgent, left: timedelta) -> Awaitable[Authentication]:
            return agent.continue_authentication(
                authentication,
                next_tokencode,
                new_pin=new_pin,
                request_id=request_id,
                within=left,
            )

        decided = await self._ask(route, ask, self._deadline(within))
        return replace(decided, cluster=cluster.name)

    async def _ask(
        self,
        route: Route,
        ask: Callable[[AsyncAgent, timedelta], Awaitable[R]],
        deadline: Deadline,
    ) -> R:
        """Ask one cluster, and record what is known of the attempt afterwards."""
        connection = self._connections[route.cluster]
        connection.calls += 1
        try:
            answer = await ask(connection.agent, deadline.remaining())
        except (OutcomeUnknown, NodeFailed, asyncio.CancelledError) as error:
            # A canceled call may have been applied as well.
            route.on_unknown()
            if isinstance(error, OutcomeUnknown):
                error.cluster = route.cluster.name
            raise
        finally:
            connection.calls -= 1
            self._close_retired()
        route.on_answer()
        return answer

    def _deadline(self, within: timedelta | None) -> Deadline:
        return Deadline.after(self._timeout if within is None else within)

    def _connect_all(self, table: SlotTable) -> None:
        """
        Make the clients of a new table; retire those of addresses that it has no longer.

        Raises `OSError` and `ValueError`, and then changes nothing.
        """
        connections = {
            cluster: self._connections.get(cluster)
            or _Connection(self._connect(cluster))
            for cluster in table.clusters.values()
        }
        self._retired.update(self._connections.values())
        self._retired.difference_update(connections.values())
        self._connections = connections
        self._close_retired()

    def _close_retired(self) -> None:
        """Close the connections to former addresses on which no call waits."""
        unused = {each for each in self._retired if not each.calls}
        self._retired -= unused
        for connection in unused:
            task = asyncio.get_running_loop().create_task(connection.agent.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    @property
    def removed_nodes(self) -> frozenset[str]:
        """Addresses of nodes that have said that they were removed from their cluster."""
        return frozenset().union(
            *(each.agent.removed_nodes for each in self._connections.values())
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to all clusters."""
        connections = (*self._connections.values(), *self._retired)
        self._retired.clear()
        for connection in connections:
            await connection.agent.close()
        await asyncio.gather(*self._closing)

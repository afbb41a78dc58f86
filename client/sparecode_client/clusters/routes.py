# SPDX-License-Identifier: Apache-2.0
"""
The way of one attempt through several clusters. No network here: `agent.py` calls.

An attempt goes to the cluster that has the slot of its user name. It goes to another
cluster only after the first one has said that the slot has moved away. Such an answer
means that the first cluster has not applied the attempt, and never will. After any other
end, above all an unknown outcome, the attempt belongs to the first cluster: a second one
does not know the request id, and would spend a code that the first perhaps has accepted.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable

from sparecode_client.clusters.slots import ClusterAddress, SlotTable
from sparecode_client.errors import SparecodeError, Unavailable

log = logging.getLogger(__name__)

SLOT_MOVED = "SLOT_MOVED"
"""Reason of a cluster that gave the slot away: the attempt is not and never applied."""
REMEMBERED_S = 600.0
"""How long a cluster remembers a request id (Q3). Later, no attempt is repeated."""
PINNED_MAX = 100_000
"""
Attempts without a known outcome whose clusters are remembered; the oldest go first.

A retry of an older one goes where the table says. It is no risk that a code works twice:
a slot moves with all that is spent. But the retry may be refused, because the code that
its first try spent is used.
"""
LOOK_S = 5.0
"""
Seconds between two looks at the slot table.

A cluster that has lost its quorum cannot say that a slot has moved away, so the table
must be read without that.
"""


class Routes:
    """The current slot table, and the clusters of attempts without a known outcome."""

    def __init__(
        self,
        read: Callable[[], SlotTable],
        *,
        now_s: Callable[[], float],
        connect: Callable[[SlotTable], None] = lambda _: None,
    ) -> None:
        """
        Read the table. *now_s* is a clock that never goes back.

        *connect* is called with each table before it is used. It raises `OSError` or
        `ValueError` if a cluster of the table cannot be called, for example because a
        certificate has not been copied yet.
        """
        self._read = read
        self._now_s = now_s
        self._connect = connect
        self._looked_s: float | None = None
        self.table = read()
        connect(self.table)
        self._pinned: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """Request id -> cluster, and until when; oldest first."""

    def begin(self, username: str, request_id: str, *, cluster: str = "") -> "Route":
        """
        Return the route of an attempt: to *cluster* first, if it is not empty.

        An attempt whose outcome is unknown goes where it went, whatever the table says
        by now. Raises `Unavailable` if the table has no such cluster any more.
        """
        self._forget()
        if self._looked_s is None:
            self._looked_s = self._now_s()
        elif self._now_s() - self._looked_s >= LOOK_S:
            self.reload()
        pinned = cluster or self._pinned.get(request_id, ("", 0.0))[0]
        if pinned and pinned not in self.table.clusters:
            raise Unavailable(
                "CLUSTER_UNKNOWN",
                f"the outcome of this attempt is known in the cluster {pinned} only, "
                "and the slot table does not have it any more",
            )
        first = (
            self.table.clusters[pinned] if pinned else self.table.cluster_of(username)
        )
        return Route(self, username, request_id, first)

    def reload(self) -> None:
        """Read the table again; keep the present one if the other is older or wrong."""
        self._looked_s = self._now_s()
        try:
            table = self._read()
            if table.version > self.table.version:
                self._connect(table)
                self.table = table
        except (OSError, ValueError) as error:
            # An operator may be writing the files: the next look reads them again.
            log.warning("slot_table_not_renewed", extra={"cause": str(error)})

    def pin(self, request_id: str, cluster: str) -> None:
        """Let further tries of an attempt go to the cluster that perhaps applied it."""
        self._pinned[request_id] = (cluster, self._now_s() + REMEMBERED_S)
        self._pinned.move_to_end(request_id)
        if len(self._pinned) > PINNED_MAX:
            self._pinned.popitem(last=False)

    def unpin(self, request_id: str) -> None:
        """Forget the cluster of an attempt: its outcome is known."""
        self._pinned.pop(request_id, None)

    def _forget(self) -> None:
        """Forget attempts that are too old to be repeated."""
        while self._pinned:
            request_id, (_, ends_at_s) = next(iter(self._pinned.items()))
            if ends_at_s > self._now_s():
                return
            del self._pinned[request_id]


class Route:
    """One attempt: where it goes now, and where it may go next."""

    def __init__(
        self, routes: Routes, username: str, request_id: str, first: ClusterAddress
    ) -> None:
        self._routes = routes
        self._username = username
        self._request_id = request_id
        self._gone = {first.name}
        self.cluster = first
        """Where the attempt goes now."""

    def on_unknown(self) -> None:
        """Record that the cluster perhaps applied the attempt."""
        self._routes.pin(self._request_id, self.cluster.name)

    def on_answer(self) -> None:
        """Record that the cluster has decided the attempt, or refused it for good."""
        self._routes.unpin(self._request_id)

    def on_moved(self, error: SparecodeError) -> None:
        """
        Go on to the cluster that has the slot now.

        Raises `Unavailable` if the table names none that has not given the slot away.
        """
        self._routes.unpin(self._request_id)
        self._routes.reload()
        following = self._routes.table.cluster_of(self._username)
        if following.name in self._gone:
            raise Unavailable(
                SLOT_MOVED,
                f"{error.words}; the slot table (version {self._routes.table.version}) "
                f"still names the cluster {following.name}: update it",
            ) from error
        self._gone.add(following.name)
        self.cluster = following

# SPDX-License-Identifier: Apache-2.0
"""
Strikes the cluster with one fault after the other, and lets it recover by itself.

After each fault everything is whole again: cuts healed, space freed, dead nodes
started. Then all nodes must serve without help. A node that does not is a failure.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from local_cluster.cluster import LocalClusterError, LocalNode

from sparecode_client import Admin, ClusterStatus, SparecodeError
from tests.faults.bounds import recovery_s
from tests.faults.receivers import Receivers
from tests.faults.site import Site
from tests.faults.striker import FirstSuccess, Proof
from tests.faults.strikes import Strikes

CALM_S = 1.5
"""Between the end of one fault and the next."""
NO_QUORUM = frozenset({"kill_majority", "kill_all", "power_all"})
"""Faults that leave no quorum: the cluster cannot serve while they last."""

FAULTS = (
    "kill_replica",
    "kill_primary",
    "kill_majority",
    "kill_all",
    "pause_primary",
    "pause_replica",
    "isolate_primary",
    "halves",
    "bridge",
    "blackhole",
    "one_way_out",
    "one_way_in",
    "delay",
    "loss",
    "links_swallow",
    "links_half_close",
    "links_corrupt",
    "links_swallow_and_kill",
    "starving",
    "power_one",
    "power_primary",
    "power_all",
    "full_disk",
    "sync_error_primary",
    "sync_error_replica",
    "wal_error_primary",
    "wal_error_replica",
    "wal_error_once",
    "slow_sync",
    "slow_disks",
    "slow_snapshot",
    "disk_went_back_primary",
    "disk_went_back_replica",
    "clock_of_primary",
    "clock_of_replica",
    "rolling_restart",
    "receiver_hangs",
    "receiver_fails",
    "receiver_closed",
    "segments_deleted",
    "segments_spoiled",
    "segment_rotten",
    "segment_page_rotten",
    "segment_reads_fail",
    "archive_damaged",
    "archive_lost",
    "archive_full",
    "archive_interrupted",
    "copy_withdrawn",
    "segments_removed",
    "fault_point",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One fault that happened."""

    fault: str
    begin_ns: int
    end_ns: int
    """Everything is whole again, and dead nodes are starting."""
    quorum_ns: int
    """A majority of the nodes serves."""
    ready_ns: int
    """Every node serves."""
    proof: Proof
    failure: str
    """A problem that must not happen: a node that does not come back."""


class Nemesis:
    """Runs in its own thread, in parallel with the clients."""

    def __init__(
        self,
        site: Site,
        chance: random.Random,
        *,
        session: str,
        first_success: FirstSuccess,
        receivers: Receivers,
    ) -> None:
        self._site = site
        self._session = session
        self._chance = chance
        self._strikes = Strikes(
            site,
            chance,
            primary=self._primary,
            offset_of=self._offset_of,
            newest_applied=self._newest_applied,
            first_success=first_success,
            receivers=receivers,
        )
        self.struck: list[Strike] = []
        self._over = False

    def campaign(
        self, faults: Sequence[str], *, seconds: float, say: Callable[[str], None]
    ) -> None:
        """Strike with these faults at random; each comes once before any repeats."""
        deadline = time.monotonic() + seconds
        for fault in self._shuffled(faults):
            if self._over or time.monotonic() > deadline:
                return
            say(_describe(self._strike(fault)))
            if self.struck[-1].failure:
                return

    def cycles(
        self, faults: Sequence[str], *, count: int, say: Callable[[str], None]
    ) -> None:
        """Strike *count* times with these faults in turn."""
        for number in range(count):
            if self._over:
                return
            say(_describe(self._strike(faults[number % len(faults)])))
            if self.struck[-1].failure:
                return

    def end(self) -> None:
        """Start no new fault; the current one finishes."""
        self._over = True

    def _shuffled(self, faults: Sequence[str]) -> Iterator[str]:
        while True:
            yield from self._chance.sample(faults, len(faults))

    def _strike(self, fault: str) -> Strike:
        time.sleep(CALM_S)
        begin_ns = time.monotonic_ns()
        strike: Callable[[], Proof] = getattr(self._strikes, fault)
        self._strikes.down.clear()
        try:
            proof = strike()
        except LocalClusterError as error:
            proof = Proof(bit=False, words="not ended", failure=str(error))
        end_ns = time.monotonic_ns()
        failure = proof.failure + "".join(
            f"{node.node_id} has stopped:\n{node.last_words()}"
            for node in self._site.nodes
            if not node.running and node.node_id not in self._strikes.down
        )
        for node in self._site.nodes:
            self._site.start(node)
        quorum_ns = None
        try:
            self._site.majority_ready()
            quorum_ns = time.monotonic_ns()
            self._site.ready()
        except LocalClusterError as error:
            failure = failure or str(error)
        ready_ns = time.monotonic_ns()
        if (took_s := (ready_ns - end_ns) / 1e9) > recovery_s(fault):
            failure = failure or (
                f"all nodes served after {took_s:.1f} s, later than within"
                f" {recovery_s(fault):.0f} s"
            )
        struck = Strike(
            fault=fault,
            begin_ns=begin_ns,
            end_ns=end_ns,
            quorum_ns=quorum_ns or ready_ns,
            ready_ns=ready_ns,
            proof=proof,
            failure=failure,
        )
        self.struck.append(struck)
        return struck

    # --- Looking at the cluster ----------------------------------------------

    def _statuses(self) -> Iterator[ClusterStatus]:
        """Yield the cluster status of each node that answers, for a while."""
        cluster = self._site.cluster
        for _ in range(40):
            for node in cluster.nodes:
                with Admin(
                    [node.admin_address], ca=cluster.members_ca, session=self._session
                ) as admin:
                    try:
                        yield admin.get_status(within=timedelta(seconds=1))
                    except SparecodeError:
                        continue
            time.sleep(0.1)

    def _primary(self) -> LocalNode:
        """Return the primary; any node, if no primary is known for long."""
        for status in self._statuses():
            if status.primary and status.quorum:
                return self._site.cluster.node(status.primary)
        return self._chance.choice(self._site.nodes)

    def _newest_applied(self) -> int:
        """Return the highest applied index of all nodes."""
        for status in self._statuses():
            if status.primary and status.quorum:
                return max(member.applied_index for member in status.members)
        return 0

    def _offset_of(self, node_id: str) -> float:
        """Return the clock offset of a node as another node sees it."""
        for status in self._statuses():
            for member in status.members:
                if (
                    member.node_id == node_id != status.node_id
                    and member.reachable
                    and member.clock_offset is not None
                ):
                    return member.clock_offset.total_seconds()
        return 0.0


def _describe(strike: Strike) -> str:
    took_s = (strike.ready_ns - strike.end_ns) / 1e9
    bit = "" if strike.proof.bit else "NO EFFECT: "
    words = (
        f"{strike.fault:18}  {bit}{strike.proof.words}; all serve {took_s:.1f} s later"
    )
    return words + (f"\nFAILED: {strike.failure}" if strike.failure else "")

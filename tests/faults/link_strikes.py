# SPDX-License-Identifier: Apache-2.0
"""Faults of the links between members that TCP does not show, and a link that is slow."""

import time

from local_cluster.cluster import LocalNode

from tests.faults.link_proxies import LinkProxies
from tests.faults.site import SHORT_LOG
from tests.faults.striker import Proof, Striker
from tests.replication.silent_proxy import Death

LINKS_S = 5.0
"""How long the members may take until they answer, after all their links died silently."""
COMPACTED_S = 120.0
"""How long two nodes may take to compact their logs twice under the heaviest load."""
IN_FLIGHT = 64
"""A node that is cut off may have entries that are applied nowhere: one per client's call."""
INSTALLED_S = 20.0
"""How long a node may take to install a snapshot over a fast link."""
STARVED_S = 90.0
"""
How long a node may take to install a snapshot over a slow link; at least twice as long as
its bytes take at the link's rate. TCP does not use all of it, and calls share it.
"""
STARVED_INTERVALS = 2
"""
The fetch over the slow link takes this number of times as long as the others take to fill
their logs. They are slower while they miss the node, and keep a log eight times as long.
"""
MIN_KB_PER_S = 50
SWALLOWED = (Death.SWALLOWED, Death.REQUESTS_SWALLOWED, Death.ANSWERS_SWALLOWED)


class LinkStrikes(Striker):
    """Links that die silently, and a node that needs a snapshot."""

    def links_swallow(self) -> Proof:
        return self._die(self._chance.choice(SWALLOWED))

    def links_half_close(self) -> Proof:
        return self._die(Death.CLOSED_ONE_WAY)

    def links_corrupt(self) -> Proof:
        return self._die(Death.LENGTH_CORRUPTED)

    def links_swallow_and_kill(self) -> Proof:
        """Kill the primary, too: the survivors elect another one without their old link."""
        return self._die(Death.SWALLOWED, primary=self._primary())

    def _die(self, death: Death, primary: LocalNode | None = None) -> Proof:
        """Let every link between members die, while TCP still acknowledges."""
        places = [(self._site.place(n), n.peers_address) for n in self._site.nodes]
        with LinkProxies(places) as proxies:
            self._site.ready()
            self._last(0.5, 1.5)
            killed = ""
            if primary is not None:
                primary = self._primary()
                killed = self._site.place(primary)
            links = sum(proxies.kill(death))
            if primary is not None:
                self.down.add(primary.node_id)
                primary.kill()
            begin_ns = time.monotonic_ns()
            success_s = self._until_success(begin_ns, killed, LINKS_S)
            self._last(0.5, 2)
            swallowed = proxies.swallowed()
        kind = death.name.lower().replace("_", " ")
        words = f"{links} links {kind}: {swallowed} bytes did not arrive"
        if killed:
            words += f"; the primary {killed} killed"
        if success_s is None:
            failure = f"no success for {LINKS_S:.0f} s after the links died"
            return Proof(swallowed > 0, words, failure=failure)
        return Proof(
            links > 0 and swallowed > 0,
            f"{words}; next success after {success_s:.2f} s",
        )

    # --- A node that needs a snapshot

    def blackhole(self) -> Proof:
        """
        Cut a node off until the others have dropped the entries that it lacks.

        It then needs a snapshot. (Stock PySyncObj acknowledges changes here that no
        other node has.)
        """
        node = self._chance.choice(self._site.nodes)
        lacks, first, words = self._until_compacted(node)
        dropped = self._site.network.heal()
        words += f", {dropped} packets dropped"
        installed = self._until_installed(node, lacks, INSTALLED_S)
        if first <= lacks or not installed:
            return Proof(bit=False, words=f"{words}; no snapshot installed")
        return Proof(dropped > 0, f"{words}; snapshot of {installed} installed")

    def starving(self) -> Proof:
        """
        Let a node fetch a snapshot for longer than the others need to take a new one.

        Users continue to change things meanwhile. The offered snapshot, and the log
        after it, must stay until the node has installed it.
        """
        node = self._replica()
        begin, before = time.monotonic(), self._newest_applied()
        lacks, first, words = self._until_compacted(node)
        a_second = (self._newest_applied() - before) / (time.monotonic() - begin)
        self._site.network.heal()
        size = self._site.values(self._primary(), "snapshot_taken", "bytes")[-1]
        interval_s = SHORT_LOG["log_entries_max"] / max(a_second, 1)
        rate = max(MIN_KB_PER_S, round(size / 1000 / (STARVED_INTERVALS * interval_s)))
        self._site.network.throttle(self._site.place(node), rate)
        bound_s = max(STARVED_S, 2 * size / 1000 / rate)
        begin = time.monotonic()
        installed = self._until_installed(node, lacks, bound_s)
        took_s = time.monotonic() - begin
        dropped = self._site.network.heal()
        words += (
            f"; then a link of {rate} kB/s for {took_s:.1f} s, {dropped} packets dropped;"
            f" the others filled their logs within {interval_s:.1f} s before"
        )
        if not installed:
            failure = f"{node.node_id} installed no snapshot for {bound_s:.0f} s"
            return Proof(bit=False, words=words, failure=failure)
        return Proof(
            first > lacks and took_s > interval_s and dropped > 0,
            f"{words}; snapshot of {installed} installed",
        )

    def _until_compacted(self, node: LocalNode) -> tuple[int, int, str]:
        """
        Cut a node off until the others have dropped entries that it lacks.

        Returns the last entry that it may have, the first one that both others have,
        and what happened.
        """
        begin = time.monotonic()
        self._site.network.isolate(self._site.place(node))
        lacks = self._newest_applied() + IN_FLIGHT
        first = lacks
        while time.monotonic() < begin + COMPACTED_S and first <= lacks:
            time.sleep(0.2)
            first = min(
                max(self._site.values(each, "log_compacted", "first"), default=0)
                for each in self._site.nodes
                if each is not node
            )
        cut_s = time.monotonic() - begin
        words = (
            f"{node.node_id} isolated for {cut_s:.1f} s before entry {lacks}; the others'"
            f" logs begin at {first} or later"
        )
        return lacks, first, words

    def _until_installed(self, node: LocalNode, lacks: int, within_s: float) -> int:
        """Return the index of a snapshot that the node installed; 0 if there is none."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            newest = max(
                self._site.values(node, "snapshot_installed", "index"), default=0
            )
            if newest > lacks:
                return newest
            time.sleep(0.2)
        return 0

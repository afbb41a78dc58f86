# SPDX-License-Identifier: Apache-2.0
"""Disks that went back in time: an older copy of a data folder is started."""

import shutil
import time
from datetime import timedelta
from pathlib import Path

from local_cluster.cluster import (
    ADMINISTRATOR,
    LocalClusterError,
    LocalNode,
)

from sparecode_client import Admin, MemberStanding
from tests.faults.newcomers import NewcomerError, begin_anew
from tests.faults.segment_strikes import EACH_S
from tests.faults.striker import Proof, Striker

REFUSED_S = 30.0
"""How long a node may take from its start on an older copy until it is refused."""
JOINED_S = 60.0
"""
How long a node may take from its removal until it votes again, under another id.

And `EACH_S` for each sealed segment of the audit log, which it fetches before it votes.
"""
REFUSED = "restored_from_older_copy"
NOTICED = "older_copy_refused"
_CALL = timedelta(seconds=10)
_POLL_S = 0.1


class ReturnStrikes(Striker):
    """Disks that went back."""

    def disk_went_back_primary(self) -> Proof:
        return self._went_back(self._primary())

    def disk_went_back_replica(self) -> Proof:
        return self._went_back(self._replica())

    def _went_back(self, node: LocalNode) -> Proof:
        """
        Start a node on an older copy of its data; then remove it, and let it join again.

        The copy is intact, and lacks what the node has acknowledged and promised since.
        """
        data = node.directory / "data"
        copy = data.parent.parent.parent / f"{self._site.place(node)}.copy"
        node.stop()
        _copy_contents(data, copy)
        self._site.start(node)
        self._site.ready(node)
        applied = self._newest_applied()
        self._last(1.5, 3)
        node.stop()
        _copy_contents(copy, data)
        shutil.rmtree(copy)
        refusals, notices = self._site.count(REFUSED), self._site.count(NOTICED)
        self._site.start(node)
        begin = time.monotonic()
        while self._site.count(REFUSED) == refusals:
            if time.monotonic() > begin + REFUSED_S:
                words = f"{node.node_id} was put back to entry {applied}"
                failure = f"{node.node_id} was not refused for {REFUSED_S:.0f} s"
                return Proof(bit=False, words=words, failure=failure)
            time.sleep(_POLL_S)
        refused_s = time.monotonic() - begin
        failure = ""
        if self._serves(node):
            failure = f"{node.node_id} serves from an older copy"
        notices = self._site.count(NOTICED) - notices
        old_id, begin = node.node_id, time.monotonic()
        within_s = JOINED_S + EACH_S * self._sealed()
        try:
            self._replace(node, within_s)
        except NewcomerError as error:
            failure = failure or str(error)
        joined_s = time.monotonic() - begin
        if joined_s > within_s:
            failure = failure or f"{node.node_id} did not vote for {joined_s:.1f} s"
        return Proof(
            bit=notices > 0,
            words=f"{old_id} was put back to entry {applied} or before, and refused as an"
            f" older copy after {refused_s:.1f} s; removed, and a voter again as"
            f" {node.node_id} after {joined_s:.1f} s",
            failure=failure,
        )

    def _serves(self, node: LocalNode) -> bool:
        try:
            self._site.ready(node, timeout_s=1)
        except LocalClusterError:
            return False
        return True

    def _sealed(self) -> int:
        """Return how many segments the nodes have stored."""
        return max(
            (
                number
                for node in self._site.nodes
                for number in self._site.values(node, "segment_stored", "segment")
            ),
            default=0,
        )

    def _replace(self, node: LocalNode, within_s: float) -> None:
        """Do what docs/runbooks/restored-machine.md says."""
        cluster = self._site.cluster
        node.stop()
        others = [each.admin_address for each in self._site.nodes if each is not node]
        with Admin(others, ca=cluster.members_ca, timeout=_CALL) as admin:
            admin.login(ADMINISTRATOR, cluster.password)
            admin.confirm_with(lambda _: cluster.password)
            admin.remove_member(node.node_id)
            new_id = self._site.unused_id()
            ticket = admin.create_join_ticket(
                new_id, node.peers_address, with_authority=True
            )
            begin_anew(node, new_id, ticket.ticket)
            self._site.start(node)
            deadline = time.monotonic() + within_s
            while not any(
                each.node_id == new_id and each.standing is MemberStanding.VOTER
                for each in admin.list_members()
            ):
                if time.monotonic() > deadline:
                    raise NewcomerError(f"{new_id} is no voter after {within_s:.0f} s")
                time.sleep(_POLL_S)


def _copy_contents(source: Path, target: Path) -> None:
    """Let *target* have the contents of *source* and no others."""
    target.mkdir(exist_ok=True)
    for path in target.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.copytree(source, target, dirs_exist_ok=True)

# SPDX-License-Identifier: Apache-2.0
"""Nodes that join by a ticket, and how long it takes until they serve and vote."""

import contextlib
import math
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from local_cluster.cluster import ADMINISTRATOR, LocalCluster, LocalNode

from sparecode_client import Admin, MemberStanding
from tests.bench.estate import Estate, cpu_s
from tests.system.machines import Site

LOOK_S = 0.25


@contextlib.contextmanager
def folder_of(kept: Path | None, prefix: str) -> Iterator[Path]:
    """Yield the folder of the estates: one that stays, or else a temporary one."""
    if kept is None:
        with tempfile.TemporaryDirectory(prefix=prefix) as name:
            yield Path(name)
    else:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()


def kept(folder: Path | None, *options: str) -> str:
    """Return the options of a recorded command. Estates in a folder may be older."""
    words = (*options, *(() if folder is None else ("--folder DIR",)))
    return f' ARGS="{" ".join(words)}"' if words else ""


class EstateSite(Site):
    """The nodes of an estate, as a site that a machine can join."""

    def __init__(self, estate: Estate) -> None:
        nodes = {node.node_id: node for node in estate.cluster.nodes}
        super().__init__(estate.cluster.directory, nodes)
        self._cluster = estate.cluster

    @property
    def members_ca(self) -> Path:
        return self._cluster.members_ca

    def machine(self, node_id: str, folder: str = "") -> LocalNode:
        node = super().machine(node_id, folder)
        # As the others: one session, and their log.
        node.own_session = False
        text = node.config.read_text()
        text = text.replace('format = "json"', 'format = "text"')
        node.config.write_text(text.replace('level = "debug"', 'level = "info"'))
        return node

    def sign_in(self) -> CompletedProcess[str]:
        password = f"--password-file={self._cluster.password_file}"
        return self._admin("login", ADMINISTRATOR, password)


@dataclass(frozen=True, kw_only=True)
class Took:
    """What a step of a join took, from the start of the new node's process on."""

    seconds: float
    cpu_s: float
    """Processor time of the new node and of all members that ran."""


NEVER = Took(seconds=math.inf, cpu_s=math.inf)
"""The step was not reached in time."""


@dataclass(frozen=True, kw_only=True)
class Join:
    """A node that joined."""

    node: LocalNode
    serves: Took
    votes: Future[Took]
    """Known later: a node may serve long before it votes."""


class _Clock:
    """Counts from the start of a node on."""

    def __init__(self, members: Sequence[LocalNode], new: LocalNode) -> None:
        self._members, self._new = members, new
        self._before, self._began = self._spent_s(), time.perf_counter()

    def took(self) -> Took:
        cpu = self._spent_s() + cpu_s(pid_of(self._new)) - self._before
        return Took(seconds=time.perf_counter() - self._began, cpu_s=cpu)

    def _spent_s(self) -> float:
        return sum(cpu_s(pid_of(node)) for node in self._members)


def join(
    site: Site, cluster: LocalCluster, name: str, *, ready_s: float, votes_s: float
) -> Join:
    """
    Let a new node join the nodes of a cluster, and wait until it serves.

    *name* begins its id, which is another one each time: ids of removed members never
    come back. *ready_s*: how long to wait for it. *votes_s*: how long it may take until
    it votes, after that.
    """
    signed_in = site.sign_in()
    if signed_in.returncode:
        raise RuntimeError(signed_in.stderr)
    members = [node for node in cluster.nodes if node.running]
    new = site.machine(f"{name}-{secrets.token_hex(3)}")
    ticket = site.join(new)
    if ticket.returncode:
        raise RuntimeError(ticket.stderr)
    clock = _Clock(members, new)
    new.start()
    try:
        cluster.wait_ready(new, timeout_s=ready_s, poll_s=0.02)
    except BaseException:
        new.kill()
        raise
    serves, pool = clock.took(), ThreadPoolExecutor(1)

    def watch() -> Took:
        with Admin(members[0].admin_address, ca=site.members_ca) as admin:
            admin.login(ADMINISTRATOR, cluster.password)
            deadline = time.monotonic() + votes_s
            while time.monotonic() < deadline:
                if _votes(admin, new):
                    return clock.took()
                time.sleep(LOOK_S)
        return NEVER

    votes = pool.submit(watch)
    pool.shutdown(wait=False)
    return Join(node=new, serves=serves, votes=votes)


def _votes(admin: Admin, node: LocalNode) -> bool:
    return any(
        each.node_id == node.node_id and each.standing is MemberStanding.VOTER
        for each in admin.list_members()
    )


def remove(site: Site, node: LocalNode) -> None:
    """Take a node out of the cluster, and delete its folder."""
    removed = site.admin("cluster", "remove", node.node_id, "--yes")
    if removed.returncode:
        raise RuntimeError(removed.stderr)
    node.kill()
    del site.machines[node.node_id]
    shutil.rmtree(node.directory)


def pid_of(node: LocalNode) -> int:
    """Return the process of a node that runs."""
    if node.pid is None:
        raise RuntimeError(f"{node.node_id} does not run")
    return node.pid

# SPDX-License-Identifier: Apache-2.0
"""
What keeps a node that belongs to a cluster from beginning another one.

A node that joined by a ticket, and the first node of a cluster that grew, name only
themselves in `node.toml`. If such a node loses its data folder, its files look like
those of a new node: a key ring, certificates, and no data. It would elect itself, and
callers would be sent to an empty cluster. So a node begins a cluster only after
`init` on this data folder, and `init` refuses a node with signs of another cluster.
"""

import asyncio
import datetime as dt
import enum

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.own_tls import member_tls
from sparecode_node.membership.preparation import (
    FOUNDING,
    JOURNAL,
    STATE,
    StartError,
    first_members,
    joined_record,
    read_joined,
    refuse_existing,
    ring_file,
)
from sparecode_node.replication.log.file import NAME as JOURNAL_FILE
from sparecode_node.replication.offline.inspection import ask_members
from sparecode_node.rpc.tls import TlsFileError
from sparecode_node.services.ambient import Clock

RUNBOOK = "docs/runbooks/blank-node.md"
ASK_S = 2.0


class Beginning(enum.Enum):
    """What a node does at its next start."""

    CONTINUES = enum.auto()
    """It has data."""
    FOUNDS = enum.auto()
    """`init` has prepared it to begin a cluster."""
    JOINS = enum.auto()
    """`init --join` or `--beside` has prepared it to join one."""
    WITH_OTHERS = enum.auto()
    """It waits for all members that `node.toml` names: one of them founds the cluster."""
    NOTHING = enum.auto()
    """It was never set up, or has lost its data."""


def beginning_of(config: Config, cluster_id: str) -> Beginning:
    """
    Return what a node does at its next start. Raises `StartError`.

    *cluster_id* is that of its key ring.
    """
    if has_data(config):
        return Beginning.CONTINUES
    if (config.node.data_dir / FOUNDING).exists():
        return Beginning.FOUNDS
    if first_members(config, cluster_id).joins:
        return Beginning.JOINS
    return Beginning.WITH_OTHERS if len(config.members) > 1 else Beginning.NOTHING


def has_data(config: Config) -> bool:
    """Return whether the node has a journal or a state."""
    data = config.node.data_dir
    return (data / JOURNAL / JOURNAL_FILE).exists() or (data / STATE).exists()


def refuse_blank(config: Config, cluster_id: str) -> None:
    """
    Raise `StartError` if a node without data would begin a cluster unasked.

    Founders that `node.toml` names may start without `init`: they elect no primary
    before all of them agree, and members of an existing cluster do not.
    """
    if beginning_of(config, cluster_id) is Beginning.NOTHING:
        raise StartError(blank_words(config, cluster_id))


def blank_words(config: Config, cluster_id: str) -> str:
    """Return what is wrong with a node without data, and what to do."""
    has_ring = f", but the key ring of cluster {cluster_id}" if cluster_id else ""
    return (
        f"{config.node.data_dir} has no data{has_ring}: if its disk is not mounted, "
        f"mount it; if the data is lost, remove {config.node.id} from the cluster, and "
        f"let the machine join under a new id ({RUNBOOK}); if this is a new node, run "
        "`sparecode-node init`"
    )


def refuse_founding(config: Config, clock: Clock) -> None:
    """Raise `StartError` if this node has data or signs of an existing cluster."""
    refuse_existing(config)
    ring, record = ring_file(config), joined_record(config)
    if ring.path.exists():
        raise StartError(
            f"{ring.path} exists, so {config.node.id} belongs to a cluster already: if "
            f"its data is lost, see {RUNBOOK}; to begin a new cluster, move the file "
            "away, or name a new ring in [keys] given"
        )
    joined = read_joined(record)
    if joined is not None:
        raise StartError(
            f"{record} says that the certificate is of cluster {joined.cluster_id}: if "
            f"the data of {config.node.id} is lost, see {RUNBOOK}; to begin a new "
            "cluster, remove the file and the certificates"
        )
    if others := asyncio.run(_running_members(config, clock)):
        raise StartError(
            f"{others} already run a cluster that {config.node.id} must not begin again: "
            f"if its data is lost, see {RUNBOOK}"
        )


async def _running_members(config: Config, clock: Clock) -> str:
    """Return the nodes in `node.toml` that are members of a cluster with a history."""
    others = {NodeId(each): str(at) for each, at in config.members.items()}
    del others[NodeId(config.node.id)]
    if not others:
        return ""
    try:
        tls = member_tls(
            config, dt.datetime.fromtimestamp(clock.now_ms() / 1000, dt.UTC)
        )
    except TlsFileError:  # It has no certificate yet: no cluster knows it.
        return ""
    statuses = await ask_members(others, tls, timeout_s=ASK_S)
    return ", ".join(
        each.node_id for each in statuses if each.audit_sequence or each.refusal
    )

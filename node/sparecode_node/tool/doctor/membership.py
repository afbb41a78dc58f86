# SPDX-License-Identifier: Apache-2.0
"""Checks of the node's place in its cluster, and whether it can admit others."""

from collections.abc import Collection, Iterator, Mapping

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.authority import FileAuthority
from sparecode_node.membership.bundle_record import BundleState, bundle_state
from sparecode_node.membership.files import key_beside
from sparecode_node.membership.preparation import StartError, first_members
from sparecode_node.replication.members import MemberRole
from sparecode_node.replication.offline.inspection import JournalFacts
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn


def check_membership(
    journal: JournalFacts | None, node_id: NodeId
) -> Iterator[Finding]:
    """Check this node's membership by its journal, which may be behind the cluster."""
    if journal is None:
        return
    configuration = journal.configuration
    member = configuration.member(node_id)
    if node_id in configuration.removed:
        yield fail(
            "membership",
            f"{node_id} was removed from the cluster, and its id is never used again: "
            "set up the machine as a new node with another id",
        )
    elif member is None:
        yield warn(
            "membership", f"{node_id} is not a member yet, according to its journal"
        )
    elif member.role is MemberRole.LEARNER:
        yield warn(
            "membership",
            f"{node_id} is a learner: it votes as soon as it has caught up; to follow "
            "its progress: sparecode cluster members",
        )
    else:
        voters = ", ".join(sorted(configuration.voters))
        yield ok("membership", f"{node_id} is a voter; the voters are {voters}")


def check_authority(config: Config) -> Finding:
    """Check whether this node can sign the certificates of nodes that join."""
    key = key_beside(config.peers.ca)
    if not key.exists():
        return ok(
            "joining",
            f"{key} does not exist: nodes that join here get their certificate from "
            "another member; if no other member has the key: sparecode-node authority "
            "restore",
        )
    if not FileAuthority(config).can_sign():
        return fail(
            "joining", f"{key} does not match {config.peers.ca}: no node can join here"
        )
    return ok(
        "joining", f"this node signs certificates for nodes that join, with {key}"
    )


def check_bundle(config: Config) -> Finding:
    """Check whether a recovery bundle has the keys that only this node may have."""
    export = f"export one: sparecode-node --config {config.path} bundle FILE"
    match bundle_state(config):
        case BundleState.NOT_HERE:
            return ok(
                "recovery bundle",
                "this node has no key of an authority; export bundles where one is",
            )
        case BundleState.MISSING:
            return warn(
                "recovery bundle",
                "none was exported on this node: without one, the authorities' keys are "
                f"lost with it, and no backup can be restored; {export}",
            )
        case BundleState.OUTDATED:
            return warn(
                "recovery bundle",
                "an authority or the ring's key was replaced after the last one was "
                f"exported on this node; {export}",
            )
        case _:
            return ok(
                "recovery bundle",
                "the last one that was exported on this node has the current keys",
            )


def other_members(
    config: Config, journal: JournalFacts | None, ring: KeyRing | None
) -> Mapping[NodeId, str]:
    """Return the other members' addresses, from the journal or else `node.toml`."""
    members: dict[NodeId, str] = {}
    if journal is not None:
        members = {
            member.node_id: member.address for member in journal.configuration.members
        }
    if not all(members.values()) or not members:
        try:
            cluster_id = ring.cluster_id if ring is not None else ""
            members = dict(first_members(config, cluster_id).members)
        except StartError:
            members = {}
    members.pop(NodeId(config.node.id), None)
    return members


def voters_among(
    members: Collection[NodeId], journal: JournalFacts | None
) -> frozenset[NodeId]:
    """Return the voters: all members unless a journal names them."""
    if journal is None or not journal.configuration.voters:
        return frozenset(members)
    return journal.configuration.voters

# SPDX-License-Identifier: Apache-2.0
"""Checks of the node's place in its cluster, and whether it can admit others."""

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Mapping

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.authority import FileAuthority
from sparecode_node.membership.bundle_record import BundleState, bundle_state
from sparecode_node.membership.files import key_beside
from sparecode_node.membership.founding_checks import (
    RUNBOOK,
    Beginning,
    beginning_of,
    blank_words,
    has_data,
)
from sparecode_node.membership.preparation import (
    FOUNDING,
    JOURNAL,
    STATE,
    StartError,
    first_members,
    joined_record,
    read_joined,
)
from sparecode_node.replication.members import MemberRole
from sparecode_node.replication.offline.inspection import (
    JournalFacts,
    hello_of,
    refused_as_older_copy,
)
from sparecode_node.replication.raft.admission import Refusal, explained
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.statemachine.tables.schema import read_only_uri
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn
from sparecode_node.tool.terminal import tool


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
            "set up the machine as a new node with another id "
            "(docs/runbooks/removed-node.md)",
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


def check_older_copy(config: Config, journal: JournalFacts | None) -> Iterator[Finding]:
    """Check whether a member has refused this node as restored from an older copy."""
    if journal is None:
        return
    member = refused_as_older_copy(config.node.data_dir / JOURNAL, journal)
    if member:
        yield fail(
            "membership",
            f"{member} has refused this node: {explained(Refusal.ROLLED_BACK)}",
        )


def check_beginning(config: Config, ring: KeyRing | None) -> Iterator[Finding]:
    """Check what a node without data does at its next start."""
    cluster_id = ring.cluster_id if ring is not None else ""
    node_id = config.node.id
    try:
        beginning = beginning_of(config, cluster_id)
    except StartError as error:
        yield fail("membership", str(error))
        return
    match beginning:
        case Beginning.CONTINUES:
            return
        case Beginning.FOUNDS:
            yield ok("membership", f"{node_id} is ready to begin a cluster: start it")
        case Beginning.JOINS:
            yield ok(
                "membership",
                f"{node_id} is ready to join cluster {cluster_id}: start it",
            )
        case Beginning.WITH_OTHERS:
            yield warn(
                "membership",
                f"{node_id} has no data: it begins with {', '.join(config.members)} once "
                "all of them run; if it was a member before, its data is lost "
                f"({RUNBOOK})",
            )
        case _:
            yield fail("membership", blank_words(config, cluster_id))


def is_prepared(config: Config, ring: KeyRing | None) -> bool:
    """Return whether `init` has set up a node that has no data yet."""
    try:
        beginning = beginning_of(config, ring.cluster_id if ring is not None else "")
    except StartError:
        return False  # `check_beginning` says why.
    return beginning in (Beginning.FOUNDS, Beginning.JOINS)


def shown_hello(
    config: Config, journal: JournalFacts | None, ring: KeyRing | None
) -> bytes | None:
    """
    Return what this node shows to members, which judge it as they would judge a link.

    None: its ring or journal cannot be read, and another check says why.
    """
    if ring is None:
        return None
    if journal is None and has_data(config):
        return None
    return hello_of(ring.cluster_id, journal)


def check_initialized(
    config: Config, journal: JournalFacts | None
) -> Iterator[Finding]:
    """Check whether the cluster of a voter has been initialized."""
    path = config.node.data_dir / STATE
    member = journal and journal.configuration.member(config.node.id)
    if not member or member.role is not MemberRole.VOTER or not path.exists():
        return  # It gets its state from the others, if it is a member at all.
    with (
        contextlib.suppress(sqlite3.DatabaseError),  # `check_state` reports it.
        contextlib.closing(sqlite3.connect(read_only_uri(path), uri=True)) as db,
    ):
        if db.execute("SELECT 1 FROM meta WHERE name = 'cluster_id'").fetchone():
            return
        if (config.node.data_dir / FOUNDING).exists():
            yield warn(
                "cluster", "not begun yet: this node begins it once the voters run"
            )
        else:
            yield fail(
                "cluster",
                "it has no administrator yet: run `sparecode-node init` on one node, or "
                f"wait until that node is up; if {config.node.id} has lost its data: "
                f"{RUNBOOK}",
            )


def check_authority(config: Config) -> Finding:
    """Check whether this node can sign the certificates of nodes that join."""
    try:
        return _check_authority(config)
    except (OSError, ValueError) as error:
        return warn("joining", f"not checked: {error}")


def _check_authority(config: Config) -> Finding:
    key, authority = key_beside(config.peers.ca), FileAuthority(config)
    if not key.exists() and not authority.can_sign():
        return ok(
            "joining",
            f"{key} does not exist: nodes that join here get their certificate from "
            "another member; if no other member has the key: sparecode-node authority "
            "restore",
        )
    if authority.has_replaced_key():
        return ok(
            "joining",
            f"the authority of {key} has been replaced: nodes that join here get their "
            "certificate from another member (docs/runbooks/new-authority.md)",
        )
    if not authority.can_sign():
        return fail(
            "joining", f"{key} does not match {config.peers.ca}: no node can join here"
        )
    return ok("joining", "this node signs certificates for nodes that join")


def check_bundle(config: Config) -> Finding:
    """Check whether a recovery bundle has the keys that only this node may have."""
    export = f"export one: {tool(config)} bundle FILE"
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
    """
    Return the other members' addresses, from the journal or else `node.toml`.

    A node without a journal asks the members of the cluster that it has joined.
    """
    members: dict[NodeId, str] = {}
    if journal is not None:
        members = {
            member.node_id: member.address for member in journal.configuration.members
        }
    if not all(members.values()) or not members:
        try:
            cluster_id = ring.cluster_id if ring is not None else ""
            first = first_members(config, cluster_id)
            members = dict(first.members)
            if journal is None and not first.joins:
                record = read_joined(joined_record(config))
                members |= dict(record.members) if record is not None else {}
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

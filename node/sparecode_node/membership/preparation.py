# SPDX-License-Identifier: Apache-2.0
"""What is done before a node runs: data folder, key ring, first administrator."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.links.joiner_certificates import Entrance
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.links.transport import PeerAddresses
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.cluster import checkpoints
from sparecode_node.services.keys.key_holder import KeyHolder, open_ring
from sparecode_node.services.load.rates import RateLimits
from sparecode_node.services.people.founding import prepare_founding
from sparecode_node.services.secrets.kdf import PROFILES, Kdf
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.services.secrets.ring_file import RingFile
from sparecode_node.services.secrets.sealing import Sealing

STATE = "state.db"
JOURNAL = "journal"
FOUNDING = "bootstrap.json"
MEMBERS = "members.json"
"""Whose cluster was joined, and with whom."""
NEW = "recover.new"
"""Holds a new cluster of a backup or a survivor until its parts are moved."""
WHOLE = "whole"
"""Says there that it is one."""


class StartError(Exception):
    """The node cannot start; the message is one line that names the thing."""


def ring_file(config: Config) -> RingFile:
    """Return where this node keeps its key ring."""
    return RingFile(
        path=config.keys_file,
        wrapping_key=config.wrapping_key_file,
        given=config.given_ring_file,
    )


def make_data_dir(path: Path) -> None:
    """Make the folder of the state, for its owner alone. Raises `StartError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever made it before may have been more generous.
        path.chmod(0o700)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstMembers:
    """With whom a node begins; from then on its journal says who the members are."""

    members: Mapping[NodeId, str]
    joins: bool
    """The cluster is there already: the node begins as a learner."""


def first_members(config: Config, cluster_id: str) -> FirstMembers:
    """
    Return with whom this node begins: those that it has joined, or those in node.toml.

    What it has joined counts for that cluster alone: one that is made of a backup, or
    of this node, begins anew. Raises `StartError` if what `init --join` has written
    cannot be read.
    """
    path, joined_members = config.node.data_dir / MEMBERS, {}
    try:
        joined = json.loads(path.read_bytes())
        members = joined["members"]
        if joined["cluster_id"] == cluster_id:
            joined_members = {NodeId(str(each)): str(members[each]) for each in members}
    except FileNotFoundError:
        pass  # It begins a cluster, or came with its journal.
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StartError(
            f"{path}: not what `sparecode-node init --join` writes; empty the data "
            "folder, and join again under a new node id"
        ) from error
    if joined_members:
        own = {NodeId(config.node.id): str(config.members[config.node.id])}
        return FirstMembers(members={**joined_members, **own}, joins=True)
    written = {NodeId(each): str(at) for each, at in config.members.items()}
    return FirstMembers(members=written, joins=False)


def raft_settings(config: Config) -> RaftSettings:
    """Return timings and limits; a timing that is not configured keeps its proportion."""
    raft, default = config.raft, RaftSettings()
    heartbeat_s = raft.heartbeat_ms / 1000
    slower = max(1.0, heartbeat_s / default.heartbeat_s)
    return RaftSettings(
        heartbeat_s=heartbeat_s,
        election_min_s=raft.election_min_ms / 1000,
        election_max_s=raft.election_max_ms / 1000,
        step_down_s=default.step_down_s * slower,
        contact_s=default.contact_s * slower,
        log_entries_max=raft.log_entries_max,
        log_bytes_max=raft.log_bytes_max,
        log_entries_kept=raft.log_entries_kept,
        log_bytes_kept=raft.log_bytes_kept,
    )


def rate_limits(config: Config) -> RateLimits:
    """Return how fast callers may be on this node (L7)."""
    limits = config.limits
    return RateLimits(
        agent=limits.agent_per_s,
        client_address=limits.client_address_per_s,
        user=limits.user_per_s,
        sign_in=limits.sign_in_per_s,
        peer=limits.peer_per_s,
        codes=limits.codes_per_s,
    )


async def initialize(
    config: Config, *, administrator: str, password: str, entropy: Entropy
) -> None:
    """
    Prepare the beginning of a new cluster on this node (P4).

    Makes the data folder, the key ring if there is none, and the file with the
    first administrator. Raises `StartError` and `InvalidFieldError`, with
    nothing changed.
    """
    refuse_existing(config)
    make_data_dir(config.node.data_dir)
    file = ring_file(config)
    try:
        file.prepare(entropy)
        ring = file.load() if file.exists() else KeyRing.draw(entropy)
        with contextlib.closing(Kdf(PROFILES[config.kdf_profile.value])) as kdf:
            await prepare_founding(
                config.node.data_dir / FOUNDING,
                administrator=administrator,
                password=password,
                sealing=Sealing(ring),
                kdf=kdf,
                entropy=entropy,
            )
        if not file.is_settled():
            file.save(ring)
    except KeyRingError as error:
        raise StartError(str(error)) from error


def audit_keys(config: Config) -> str:
    """Return the public keys of audit checkpoints, in PEM (U2). Raises `StartError`."""
    try:
        return checkpoints.public_keys(ring_file(config).load())
    except KeyRingError as error:
        raise StartError(str(error)) from error


def refuse_existing(config: Config) -> None:
    """Raise `StartError` if this node has state, or is about to begin a cluster."""
    for name in (STATE, JOURNAL, FOUNDING):
        path = config.node.data_dir / name
        if path.exists():
            raise StartError(
                f"{path} exists: node {config.node.id} belongs to a cluster already; "
                "`init` is for a new one"
            )


def refuse_interrupted(config: Config) -> None:
    """Raise `StartError` if a recovery has to be finished first."""
    path = config.node.data_dir / NEW
    if (path / WHOLE).exists():
        raise StartError(
            f"{path} exists: making a new cluster was interrupted; finish it with "
            "`sparecode-node recover`"
        )


def peer_addresses(
    config: Config, cluster_id: str, servicer: Entrance | None
) -> PeerAddresses:
    """Return where the members meet. Raises `StartError`."""
    first = first_members(config, cluster_id)
    return PeerAddresses(
        node_id=NodeId(config.node.id),
        listen=str(config.peers.listen),
        members=first.members,
        joins=first.joins,
        entrance=servicer,
    )


async def key_keeper(config: Config, tls: PeerTls) -> KeyHolder:
    """Open the key ring, with all that the state needs. Raises `KeyRingError`."""
    file = ring_file(config)
    ring = file.load()
    if not file.is_settled():
        file.save(ring)
    others = dict(first_members(config, ring.cluster_id).members)
    others.pop(NodeId(config.node.id), None)
    state = config.node.data_dir / STATE
    return await open_ring(ring, file, state, others=others, tls=tls)

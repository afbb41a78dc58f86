# SPDX-License-Identifier: Apache-2.0
"""Preparation of a node: its data folder, key ring, members and settings."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.links.joiner_certificates import JoinerService
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
from sparecode_node.services.secrets.wrap_command import WrapCommand

STATE = "state.db"
JOURNAL = "journal"
FOUNDING = "bootstrap.json"
SKIPS = "skips"
"""Folder of statements about entries that the operators skip."""
MEMBERS = "members.json"
"""The cluster that this node joined, and its members at that time."""
NEW = "recover.new"
"""Folder of a new cluster from a backup or a survivor, until its files are moved."""
WHOLE = "whole"
"""File in that folder: all files of the new cluster are there."""


class StartError(Exception):
    """The node cannot start. The message is one line: what is wrong, and where."""


def ring_file(config: Config) -> RingFile:
    """Return the files of this node's key ring."""
    return RingFile(
        path=config.keys_file,
        wrapping_key=config.wrapping_key_file,
        command=None
        if config.wrap_command is None
        else WrapCommand(argv=config.wrap_command, timeout_s=config.wrap_timeout_s),
        initial=config.given_ring_file,
    )


def make_data_dir(path: Path) -> None:
    """Create the data folder, for its owner only. Raises `StartError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # An existing folder may have wider permissions.
        path.chmod(0o700)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstMembers:
    """The members that a node starts with; later its journal holds them."""

    members: Mapping[NodeId, str]
    joins: bool
    """The cluster exists already: the node starts as a learner."""


def first_members(config: Config, cluster_id: str) -> FirstMembers:
    """
    Return the members that this node starts with: those it joined, or `node.toml`'s.

    The members it joined count only for that cluster, not for a later one that was
    made from a backup or from this node. Raises `StartError` if the file of
    `init --join` cannot be read.
    """
    joined = read_joined(config.node.data_dir / MEMBERS)
    # Without the file, the node begins a cluster, or has a journal already.
    if joined is not None and joined.cluster_id == cluster_id and joined.members:
        own = {NodeId(config.node.id): str(config.members[config.node.id])}
        return FirstMembers(members={**joined.members, **own}, joins=True)
    written = {NodeId(each): str(at) for each, at in config.members.items()}
    return FirstMembers(members=written, joins=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedCluster:
    """The cluster that a node joined, and its members at that time."""

    cluster_id: str
    members: Mapping[NodeId, str]


def read_joined(path: Path) -> JoinedCluster | None:
    """Return what `init --join` wrote to a file; None: there is no file. Raises `StartError`."""
    try:
        joined = json.loads(path.read_bytes())
        members = joined["members"]
        return JoinedCluster(
            cluster_id=str(joined["cluster_id"]),
            members={NodeId(str(each)): str(members[each]) for each in members},
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StartError(
            f"{path}: not the output of `sparecode-node init --join`; empty the data "
            "folder, and join again with a new node id"
        ) from error


def joined_record(config: Config) -> Path:
    """
    Return the copy of the members' file beside the certificate.

    It outlives the data folder: so it tells, after a loss, which cluster the
    certificate is of.
    """
    return config.peers.certificate.with_suffix(".cluster")


def raft_settings(config: Config) -> RaftSettings:
    """Return timings and limits; those that are not configured scale with the heartbeat."""
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
    """Return the rate limits of this node (L7)."""
    limits = config.limits
    return RateLimits(
        agent=limits.agent_per_s,
        client_address=limits.client_address_per_s,
        user=limits.user_per_s,
        sign_in=limits.sign_in_per_s,
        peer=limits.peer_per_s,
        codes=limits.codes_per_s,
        session=limits.session_per_s,
    )


async def initialize(
    config: Config, *, administrator: str, password: str, entropy: Entropy
) -> None:
    """
    Prepare this node to begin a new cluster at its first start (P4).

    Creates the data folder, the key ring if there is none, and the file with the
    first administrator. Raises `StartError` and `InvalidFieldError`, and then
    changes nothing.
    """
    refuse_existing(config)
    make_data_dir(config.node.data_dir)
    file = ring_file(config)
    try:
        file.prepare(entropy)
        ring = file.load() if file.exists() else KeyRing.draw(entropy)
        with contextlib.closing(Kdf(PROFILES[config.kdf.profile.value])) as kdf:
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
    """Return the public keys that verify checkpoints, PEM (U2). Raises `StartError`."""
    try:
        return checkpoints.public_keys(ring_file(config).load())
    except KeyRingError as error:
        raise StartError(str(error)) from error


def refuse_existing(config: Config) -> None:
    """Raise `StartError` if this node has data or is prepared to begin a cluster."""
    for name in (STATE, JOURNAL, FOUNDING):
        path = config.node.data_dir / name
        if path.exists():
            raise StartError(
                f"{path} exists: node {config.node.id} belongs to a cluster already; "
                "use `init` only for a new node"
            )


def refuse_interrupted(config: Config) -> None:
    """Raise `StartError` if an interrupted restore or recovery must be finished."""
    path = config.node.data_dir / NEW
    if (path / WHOLE).exists():
        raise StartError(
            f"{path} exists: a restore or a recovery was interrupted; finish it with "
            "`sparecode-node recover`"
        )


def peer_addresses(
    config: Config, cluster_id: str, servicer: JoinerService | None
) -> PeerAddresses:
    """Return this node's peers address and its members. Raises `StartError`."""
    first = first_members(config, cluster_id)
    return PeerAddresses(
        node_id=NodeId(config.node.id),
        listen=str(config.peers.listen),
        members=first.members,
        joins=first.joins,
        joiner_service=servicer,
    )


async def open_key_holder(config: Config, tls: PeerTls) -> KeyHolder:
    """
    Open the key ring, with every key that the state needs.

    Fetches missing keys from the other members. Raises `KeyRingError`.
    """
    file = ring_file(config)
    ring = file.load()
    if not file.is_settled():
        file.save(ring)
    others = dict(first_members(config, ring.cluster_id).members)
    others.pop(NodeId(config.node.id), None)
    state = config.node.data_dir / STATE
    return await open_ring(ring, file, state, others=others, tls=tls)

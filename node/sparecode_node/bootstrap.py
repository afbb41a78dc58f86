# SPDX-License-Identifier: Apache-2.0
"""
The composition root: builds every object of a node, starts and stops them in order.

Up: key ring, certificates, state and engine (with the peers listener), reads,
use cases, and the public listeners last. Down: the other way round, so that
nobody is let in while something below is gone.
"""

import asyncio
import contextlib
import datetime as dt
import importlib.metadata
import logging
import os
import sqlite3
from pathlib import Path

from sparecode_node.config import Config, KdfProfile, ListenerConfig
from sparecode_node.domain.ids import NodeId
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.cluster_replicator import (
    ClusterConfig,
    ClusterReplicator,
)
from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.replication.tls import URI_PREFIX, PeerTls
from sparecode_node.replication.transport import PeerAddresses
from sparecode_node.rpc.server import (
    ListenError,
    Listeners,
    ListenerSettings,
    check_free,
)
from sparecode_node.rpc.tls import TlsFileError, TlsFiles
from sparecode_node.services import checkpoints
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.founding import (
    Founder,
    FoundingError,
    prepare_founding,
)
from sparecode_node.services.kdf import PROFILES, Kdf
from sparecode_node.services.keyring import KeyRing, KeyRingError
from sparecode_node.services.rates import RateLimits
from sparecode_node.services.sealing import Sealing
from sparecode_node.services.state_file import StateFile
from sparecode_node.services.use_cases import build_services
from sparecode_node.statemachine.schema import SchemaError

log = logging.getLogger(__name__)

VERSION = importlib.metadata.version("sparecode")
STATE = "state.db"
JOURNAL = "journal"
FOUNDING = "bootstrap.json"

EXIT_FATAL = 70
"""This node found itself broken, and stopped (`EX_SOFTWARE`)."""

STOP_GRACE_S = 5.0
"""For calls that run when the node is told to stop."""
STOP_MAX_S = 15.0
"""Then it goes without."""


class StartError(Exception):
    """The node cannot start; the message is one line that names the thing."""


_REFUSALS = (
    FoundingError,
    KeyRingError,
    ListenError,
    SchemaError,
    StartRefusedError,
    TlsFileError,
)


class Node:
    """A node of the cluster. `run` it once."""

    def __init__(self, config: Config, *, clock: Clock, entropy: Entropy) -> None:
        self._config = config
        self._clock = clock
        self._entropy = entropy
        self._stopping = asyncio.Event()
        self._fatal = ""

    def stop(self) -> None:
        """Have `run` come to an end, in order."""
        self._stopping.set()

    async def run(self) -> int:
        """
        Serve until `stop` is called or the engine stops itself; return the exit code.

        Raises `StartError`.
        """
        async with contextlib.AsyncExitStack() as started:
            try:
                await self._start(started)
            except _REFUSALS as error:
                raise StartError(str(error)) from error
            except sqlite3.DatabaseError as error:
                raise StartError(
                    f"{self._config.node.data_dir / STATE}: {error}"
                ) from error
            log.info("started", extra={"node": self._config.node.id})
            await self._stopping.wait()
            log.info("stopping", extra={"node": self._config.node.id})
            asyncio.get_running_loop().call_later(STOP_MAX_S, self._give_up)
        if self._fatal:
            log.critical("stopped: %s", self._fatal)
            return EXIT_FATAL
        log.info("stopped", extra={"node": self._config.node.id})
        return 0

    def _stop_broken(self, message: str) -> None:
        self._fatal = message
        self.stop()

    def _founded(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop_broken(f"the cluster cannot begin: {error!r}")

    def _give_up(self) -> None:
        """End the process: something does not stop, and nobody shall wait for it."""
        log.critical(
            "stopped: %s", self._fatal or f"not all had ended after {STOP_MAX_S:g} s"
        )
        logging.shutdown()
        os._exit(EXIT_FATAL)

    async def _start(self, started: contextlib.AsyncExitStack) -> None:
        """Start everything; *started* is what will stop it, in reverse."""
        config = self._config
        if config.kdf_profile is KdfProfile.TESTING:
            log.warning("hashing with the testing profile: this protects nothing")
        make_data_dir(config.node.data_dir)
        sealing = Sealing(KeyRing.load(config.keys_file))
        founder = Founder.load(
            config.node.data_dir / FOUNDING, cluster_id=sealing.cluster_id
        )
        agents, admin = self._tls(config.agents), self._tls(config.admin)
        kdf = Kdf(PROFILES[config.kdf_profile.value])
        started.callback(kdf.close)
        replicator = self._replicator(sealing)
        check_free("peers", str(config.peers.listen))
        await replicator.start()
        started.push_async_callback(replicator.stop)
        state = await LocalState.open(config.node.data_dir / STATE)
        started.push_async_callback(state.close)
        listeners = Listeners(
            node_id=config.node.id,
            agents=ListenerSettings(address=str(config.agents.listen), tls=agents),
            admin=ListenerSettings(
                address=str(config.admin.listen),
                tls=admin,
                reflection=config.admin.reflection,
            ),
            services=build_services(
                replicator,
                state,
                sealing=sealing,
                kdf=kdf,
                clock=self._clock,
                entropy=self._entropy,
                limits=rate_limits(config),
            ),
            is_ready=lambda: replicator.ready,
            clock=self._clock,
        )
        await listeners.start()
        started.push_async_callback(self._close, listeners)
        if founder is not None:
            founding = asyncio.create_task(founder.run(replicator), name="founding")
            founding.add_done_callback(self._founded)
            started.push_async_callback(_cancel, founding)

    async def _close(self, listeners: Listeners) -> None:
        await listeners.stop(grace_s=0 if self._fatal else STOP_GRACE_S)

    def _tls(self, listener: ListenerConfig) -> TlsFiles:
        return TlsFiles.read(
            certificate=listener.certificate,
            key=listener.key,
            ca=getattr(listener, "ca", None),
            now=dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC),
        )

    def _replicator(self, sealing: Sealing) -> ClusterReplicator:
        config = self._config
        tls = self._tls(config.peers)
        name = f"{URI_PREFIX}{config.node.id}"
        if name not in tls.uris():
            raise TlsFileError(
                f"{config.peers.certificate}: does not name {name}, as the certificate "
                f"of node {config.node.id} must; it names "
                f"{', '.join(tls.uris()) or 'no URI'}"
            )
        state = StateFile(
            config.node.data_dir / STATE, sealing=sealing, clock=self._clock
        )
        return ClusterReplicator(
            ClusterConfig(
                cluster_id=sealing.cluster_id,
                addresses=PeerAddresses(
                    node_id=NodeId(config.node.id),
                    listen=str(config.peers.listen),
                    members={
                        NodeId(member): str(address)
                        for member, address in config.members.items()
                    },
                ),
                tls=PeerTls(certificate=tls.certificate, key=tls.key, ca=tls.ca or b""),
                directory=config.node.data_dir / JOURNAL,
                raft=raft_settings(config),
                version=VERSION,
            ),
            clock=self._clock,
            entropy=self._entropy,
            open_state=state.open,
            read_digest=state.read_digest,
            read_head=state.read_head,
            snapshots=state,
            on_fatal=self._stop_broken,
        )


def make_data_dir(path: Path) -> None:
    """Make the folder of the state, for its owner alone. Raises `StartError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever made it before may have been more generous.
        path.chmod(0o700)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error


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
    try:
        if config.keys_file.exists():
            ring = KeyRing.load(config.keys_file)
        else:
            ring = KeyRing.draw(entropy)
        with contextlib.closing(Kdf(PROFILES[config.kdf_profile.value])) as kdf:
            await prepare_founding(
                config.node.data_dir / FOUNDING,
                administrator=administrator,
                password=password,
                sealing=Sealing(ring),
                kdf=kdf,
                entropy=entropy,
            )
        if not config.keys_file.exists():
            ring.save(config.keys_file)
    except KeyRingError as error:
        raise StartError(str(error)) from error


def audit_keys(config: Config) -> str:
    """Return the public keys of audit checkpoints, in PEM (U2). Raises `StartError`."""
    try:
        return checkpoints.public_keys(KeyRing.load(config.keys_file))
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


async def _cancel(task: "asyncio.Task[None]") -> None:
    """Stop a task of ours, and wait until it has stopped."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

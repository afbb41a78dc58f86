# SPDX-License-Identifier: Apache-2.0
"""
The composition root: builds, starts and stops every object of a node, in order.

The order is: certificates, key ring, state and engine (with the peers listener),
reads, use cases, and the public listeners last. The node stops them in reverse, so
that it accepts no call that needs a stopped part.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import sqlite3
from collections.abc import Coroutine, Iterator
from typing import Any

from sparecode_node.config import Config, KdfProfile
from sparecode_node.daemon import systemd
from sparecode_node.daemon.background import Background
from sparecode_node.daemon.certificate_watch import Certificates, changed_sections
from sparecode_node.daemon.doors import STOP_GRACE_S, Doors
from sparecode_node.daemon.doors import Parts as DoorParts
from sparecode_node.daemon.health import Parts as HealthParts
from sparecode_node.daemon.health import observe
from sparecode_node.daemon.local_socket import LocalSocket
from sparecode_node.daemon.metrics.measures import Measures
from sparecode_node.daemon.tracing import set_up_tracing
from sparecode_node.domain.ids import NodeId
from sparecode_node.fault_points import Point, reach
from sparecode_node.membership.bundle_record import bundle_state
from sparecode_node.membership.founding_checks import refuse_blank
from sparecode_node.membership.preparation import (
    FOUNDING,
    JOURNAL,
    SKIPS,
    STATE,
    StartError,
    make_data_dir,
    open_key_holder,
    peer_addresses,
    raft_settings,
    rate_limits,
    refuse_interrupted,
    ring_file,
)
from sparecode_node.membership.welcome import Welcome
from sparecode_node.queries.state import LocalState
from sparecode_node.radius.listener import RadiusListenError
from sparecode_node.replication.cluster_replicator import (
    ClusterConfig,
    ClusterReplicator,
)
from sparecode_node.replication.errors import ProposeError, StartRefusedError
from sparecode_node.replication.links.member_keys import MemberKeys
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.log.format import SALT_BYTES
from sparecode_node.replication.log.skips import SkipFolder
from sparecode_node.replication.members import key_in
from sparecode_node.rpc.server import (
    ListenError,
    Listeners,
    ListenerSettings,
    check_free,
)
from sparecode_node.rpc.tls import TlsFileError, TlsFiles
from sparecode_node.services.access.packet_counts import PacketCounts
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.access.security_log import SecurityLog
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.cluster.archive import SegmentArchive
from sparecode_node.services.cluster.backups import BackupSource
from sparecode_node.services.cluster.feature_level import raise_feature_level
from sparecode_node.services.cluster.own_key import KeyNotRecordedError, OwnKey
from sparecode_node.services.cluster.retention import Retention
from sparecode_node.services.cluster.segment_holders import SegmentHolders
from sparecode_node.services.cluster.segments import SegmentKeeper
from sparecode_node.services.cluster.skip_notes import note_skip_statements
from sparecode_node.services.keys.key_holder import KeyHolder
from sparecode_node.services.load.condition import Condition
from sparecode_node.services.notices.delivery_counts import DeliveryCounts
from sparecode_node.services.people.founding import Founder, FoundingError
from sparecode_node.services.secrets.kdf import PROFILES, Kdf
from sparecode_node.services.secrets.keyring import KeyRingError
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.state.state_file import StateFile
from sparecode_node.services.state.state_process import StateProcesses
from sparecode_node.services.use_cases import build_services
from sparecode_node.statemachine.feature_level import FeatureLevelError
from sparecode_node.statemachine.tables.formats import SchemaError
from sparecode_node.web.server import WebListenError

log = logging.getLogger(__name__)
VERSION = importlib.metadata.version("sparecode")
EXIT_FATAL = 70
"""Exit code of a node that detected that it is broken (`EX_SOFTWARE`)."""

HAND_OVER_S = 3.0
"""Time for another node to take over when the primary stops."""
STOP_MAX_S = 20.0
"""Limit of the whole stop. Then the process ends, whatever still runs."""

_REFUSALS = (
    FeatureLevelError,
    FoundingError,
    KeyRingError,
    ListenError,
    RadiusListenError,
    SchemaError,
    StartRefusedError,
    TlsFileError,
    WebListenError,
)


class Node:
    """A node of the cluster. `run` it once."""

    def __init__(self, config: Config, *, clock: Clock, entropy: Entropy) -> None:
        self._config = config
        self._clock = clock
        self._entropy = entropy
        self._refusals = Refusals(clock=clock, entropy=entropy)
        self._stopping = asyncio.Event()
        self._fatal = ""
        self._certificates: Certificates | None = None
        self._replicator: ClusterReplicator | None = None
        self._key_holder: KeyHolder | None = None
        self._doors = Doors()
        self._archive: SegmentArchive | None = None
        self._radius_packets, self._deliveries = PacketCounts(), DeliveryCounts()
        self._member_keys = MemberKeys(config.accept_keys)
        self._own_key: OwnKey | None = None
        self._welcome = Welcome(config, self._refusals, clock, entropy)

    @property
    def security_log(self) -> SecurityLog:
        """The log of callers that this node refused."""
        return self._refusals.log

    def stop(self) -> None:
        """Make `run` stop everything in order and return."""
        self._stopping.set()

    def reload(self, config: Config) -> None:
        """Apply what may change at run time; log the sections that need a restart."""
        if fixed := changed_sections(self._config, config):
            log.warning("restart_needed", extra={"sections": " ".join(fixed)})
        if self._certificates is not None:
            self._certificates.configure(config)
        self._member_keys.permit(config.accept_keys)
        if self._key_holder is not None:
            self._key_holder.rewrap(ring_file(config))
        self._doors.reload(config)
        log.info("reloaded")

    async def run(self) -> int:
        """
        Serve until `stop` is called or the engine stops itself; return the exit code.

        Raises `StartError`.
        """
        async with contextlib.AsyncExitStack() as cleanup:
            try:
                await self._start(cleanup)
            except _REFUSALS as error:
                raise StartError(str(error)) from error
            except sqlite3.DatabaseError as error:
                state = self._config.node.data_dir / STATE
                raise StartError(f"{state}: {error}") from error
            log.info("started", extra={"node": self._config.node.id})
            systemd.notify("READY=1")
            await self._stopping.wait()
            log.info("stopping", extra={"node": self._config.node.id})
            systemd.notify("STOPPING=1")
            asyncio.get_running_loop().call_later(STOP_MAX_S, self._give_up)
        if self._fatal:
            log.critical("stopped: %s", self._fatal)
            return EXIT_FATAL
        log.info("stopped", extra={"node": self._config.node.id})
        return 0

    def _stop_broken(self, message: str) -> None:
        self._fatal = message
        self.stop()

    def _give_up(self) -> None:
        """End the process, because something does not stop in time."""
        log.critical(
            "stopped: %s", self._fatal or f"some parts still ran after {STOP_MAX_S:g} s"
        )
        logging.shutdown()
        os._exit(EXIT_FATAL)

    async def _start(self, cleanup: contextlib.AsyncExitStack) -> None:
        """Start everything; *cleanup* gets what stops it, in reverse order."""
        config = self._config
        background = Background(cleanup, on_failed=self._stop_broken)
        if config.kdf.profile is KdfProfile.TESTING:
            log.warning("hashing with the testing profile: this protects nothing")
        make_data_dir(config.node.data_dir)
        refuse_interrupted(config)
        certificates = Certificates(
            config,
            self._clock,
            on_renewed=self._show_certificate,
            on_changing=self._record_key,
        )
        key_holder = await open_key_holder(config, _peer_tls(certificates["peers"]))
        refuse_blank(config, key_holder.ring.cluster_id)
        founder = Founder.load(
            config.node.data_dir / FOUNDING, cluster_id=key_holder.ring.cluster_id
        )
        kdf = Kdf(PROFILES[config.kdf.profile.value], workers=config.kdf.threads)
        cleanup.callback(kdf.close)
        measures, processes = Measures(), StateProcesses()
        cleanup.callback(processes.close)
        state_file = self._state_file(key_holder, measures, processes)
        self._segments = SegmentKeeper(
            config.node.data_dir / STATE,
            state_file.stored,
            serves=lambda: self._replicator is not None and self._replicator.ready,
        )
        replicator = self._make_replicator(
            certificates, key_holder, measures, state_file
        )
        self._certificates, self._replicator = certificates, replicator
        self._key_holder = key_holder
        check_free("peers", str(config.peers.listen))
        await replicator.start()
        cleanup.push_async_callback(replicator.stop)
        state = await LocalState.open(
            config.node.data_dir / STATE, on_damage=self._segments.suspect_file
        )
        self._segments.on_replaced = state.reopen
        cleanup.push_async_callback(state.close)
        condition = observe(
            config,
            HealthParts(
                replicator=replicator,
                state_file=state_file,
                kdf=kdf,
                measures=measures,
                certificates=certificates,
                refusals=self._refusals,
                radius_packets=self._radius_packets,
                deliveries=self._deliveries,
                unarchived=lambda: self._archive.waiting if self._archive else None,
                clock=self._clock,
                version=VERSION,
            ),
            cleanup,
        )
        backup_source = BackupSource.of(
            config.node.data_dir / STATE, processes, VERSION, self._segments.suspect
        )
        await asyncio.to_thread(backup_source.remove_leftovers)
        services = build_services(
            replicator,
            state,
            key_holder=key_holder,
            kdf=kdf,
            clock=self._clock,
            entropy=self._entropy,
            refusals=self._refusals,
            backup_source=backup_source,
            fetch_segment=self._segments.fetch,
            limits=rate_limits(config),
            packet_counts=self._radius_packets,
            delivery_counts=self._deliveries,
            event_folder=config.node.event_folder,
            authorities=self._welcome.authorities,
            successors=self._welcome.accepted,
            consoles=config.console.addresses if config.console else {},
        )
        cleanup.push_async_callback(services.close)
        background.watch(self._welcome.begin(replicator, state, key_holder.ring))
        background.run(self._refusals.run(replicator), "refusals")
        background.run(raise_feature_level(replicator, self._entropy), "levels")
        background.run(
            note_skip_statements(
                SkipFolder(config.node.data_dir / SKIPS).statements(),
                certificates["peers"].ca or b"",
                replicator,
                state,
                self._entropy,
            ),
            "skip_notes",
        )
        self._own_key = OwnKey(
            replicator=replicator,
            entropy=self._entropy,
            shown=lambda: key_in(certificates["peers"].certificate),
            recorded=lambda: self._member_keys.recorded(NodeId(config.node.id)),
            feature_level=lambda: replicator.replica_status.feature_level,
        )
        for work, name in (
            (self._own_key.run(), "own_key"),
            *self._welcome.authority_work(replicator, state, certificates.authorities),
            (key_holder.run(), "keys"),
            (self._segments.run(), "segments"),
            (
                SegmentHolders(
                    keeper=self._segments,
                    replicator=replicator,
                    state=state,
                    entropy=self._entropy,
                ).run(),
                "segment_holders",
            ),
            *self._archive_work(key_holder, replicator, state),
            (services.resealer.run(), "resealing"),
            (services.due_rotation.run(), "due_rotation"),
            (services.ended_sets.run(), "ended_sets"),
            (services.delivery.run(), "delivery"),
            (services.session_use.run(replicator), "session_use"),
            (state.search.run(state.transaction), "search_index"),
        ):
            background.run(work, name)
        listeners = Listeners(
            node_id=config.node.id,
            agents=ListenerSettings(
                address=str(config.agents.listen), tls=lambda: certificates["agents"]
            ),
            admin=ListenerSettings(
                address=str(config.admin.listen),
                tls=lambda: certificates["admin"],
                reflection=config.admin.reflection,
            ),
            services=services,
            is_ready=lambda: condition.ready,
            check_open=condition.check_open,
            refusals=self._refusals,
            clock=self._clock,
            on_ended=measures.ended,
            tracer=set_up_tracing(config.node.id, VERSION, cleanup),
        )
        await listeners.start()
        cleanup.push_async_callback(self._close, listeners)
        radius = await self._doors.open(
            config,
            DoorParts(
                services=services,
                replicator=replicator,
                condition=condition,
                refusals=self._refusals,
                certificates=certificates,
                on_ended=measures.ended,
                is_broken=lambda: bool(self._fatal),
                clock=self._clock,
                entropy=self._entropy,
            ),
            cleanup,
        )
        for listener in radius:
            background.run(listener.run(), "radius")
        local = LocalSocket(
            config.node.data_dir, services.resets, self._radius_packets.packets
        )
        await local.start()
        cleanup.push_async_callback(local.stop)
        background.run(certificates.run(), "certificates")
        if founder is not None:
            background.run(founder.run(replicator), "founding")
        cleanup.push_async_callback(self._leave, condition, listeners, replicator)
        # Nothing waits for the processes that read the state any more.
        cleanup.callback(processes.close)

    async def _leave(
        self,
        condition: Condition,
        listeners: Listeners,
        replicator: ClusterReplicator,
    ) -> None:
        """Refuse new callers, and hand the primary role over, before anything stops."""
        reach(Point.STOP_LEAVE)
        condition.leave()
        listeners.leave()
        self._doors.leave()
        if self._fatal or not replicator.replica_status.is_leader:
            return
        try:
            primary = await replicator.transfer_primary(timeout_s=HAND_OVER_S)
        except ProposeError as error:
            log.warning("not_handed_over", extra={"cause": str(error)})
        else:
            log.info("handed_over", extra={"primary": primary})
            reach(Point.STOP_LEFT)

    async def _close(self, listeners: Listeners) -> None:
        await listeners.stop(grace_s=0 if self._fatal else STOP_GRACE_S)

    async def _record_key(self, name: str, files: TlsFiles) -> None:
        """Let the cluster record another key of this member before it is shown (P5a)."""
        if name == "peers" and self._own_key is not None:
            try:
                await self._own_key.replace(key_in(files.certificate))
            except (KeyNotRecordedError, ProposeError) as error:
                raise TlsFileError(
                    f"{self._config.peers.certificate}: the cluster has not recorded its "
                    f"new key yet: {error}"
                ) from error

    async def _show_certificate(self, name: str, files: TlsFiles) -> None:
        """Pass a new certificate to listeners that do not read it at each handshake."""
        if name == "peers" and self._replicator is not None:
            await self._replicator.renew_certificate(_peer_tls(files))
        self._doors.renew(name)

    def _state_file(
        self, key_holder: KeyHolder, measures: Measures, processes: StateProcesses
    ) -> StateFile:
        return StateFile(
            self._config.node.data_dir / STATE,
            sealing=Sealing(key_holder.ring),
            clock=self._clock,
            processes=processes,
            on_applied=measures.applied,
            on_keys=key_holder.follow,
            on_member_keys=self._member_keys.follow,
            on_long_start=systemd.extend_start,
        )

    def _archive_work(
        self, key_holder: KeyHolder, replicator: ClusterReplicator, state: LocalState
    ) -> Iterator[tuple[Coroutine[Any, Any, None], str]]:
        """Yield the archive of sealed audit events, if this node has one, and retention."""
        if self._config.audit_archive is not None:
            self._archive = SegmentArchive(
                folder=self._config.audit_archive,
                state=self._config.node.data_dir / STATE,
                node_id=self._config.node.id,
                sealing=Sealing(key_holder.ring),
                entropy=self._entropy,
            )
            yield self._archive.run(), "archive"
        retention = Retention(
            archive=self._archive,
            replicator=replicator,
            state=state,
            clock=self._clock,
            entropy=self._entropy,
        )
        yield retention.run(), "retention"

    def _make_replicator(
        self,
        certificates: Certificates,
        key_holder: KeyHolder,
        measures: Measures,
        state: StateFile,
    ) -> ClusterReplicator:
        config = self._config
        servicer = self._welcome.servicer(state.read_doors, self._member_keys)
        return ClusterReplicator(
            ClusterConfig(
                cluster_id=key_holder.ring.cluster_id,
                addresses=peer_addresses(config, key_holder.ring.cluster_id, servicer),
                tls=_peer_tls(certificates["peers"]),
                directory=config.node.data_dir / JOURNAL,
                skip_folder=SkipFolder(config.node.data_dir / SKIPS),
                raft=raft_settings(config),
                version=VERSION,
                recovery_bundle=lambda: bundle_state(config, key_holder.ring).value,
                authorities=certificates.authorities,
                shown_authorities=certificates.shown_authorities,
                archive=lambda: self._archive.report() if self._archive else None,
                observer=measures,
                keys=key_holder.exchange,
                segments=self._segments.exchange,
                on_malformed=self._refusals.log.malformed,
                member_keys=self._member_keys,
            ),
            clock=self._clock,
            salt=self._entropy.token_bytes(SALT_BYTES),
            open_state=state.open,
            read_digest=state.read_digest,
            read_head=state.read_head,
            snapshots=state,
            on_fatal=self._stop_broken,
        )


def _peer_tls(files: TlsFiles) -> PeerTls:
    return PeerTls(certificate=files.certificate, key=files.key, ca=files.ca or b"")

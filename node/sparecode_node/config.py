# SPDX-License-Identifier: Apache-2.0
"""
`node.toml`: the settings that differ between nodes, and their defaults.

The node reads and checks the file at its start, and again on SIGHUP. Settings that
the cluster must agree on are in the replicated policy, never here. `deploy/node.toml`
is the annotated sample: add new keys there too.
"""

import enum
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparecode_node.config_limits import LimitsConfig, read_limits
from sparecode_node.config_plugins import PluginConfig, read_plugins
from sparecode_node.config_section import Address, ConfigError, Section, quoted

TESTING = "SPARECODE_TESTING"
"""The environment variable that permits the testing profile of hashing."""

_NODE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NODE_ID_WORDS = "1 to 63 characters from a-z, 0-9 and -, with no - at either end"
_ORIGIN = re.compile(r"https://[A-Za-z0-9.\[\]:-]+", re.ASCII)
_MEMBERS_MAX = 9
_TIMING_MS_MAX = 60_000
# A follower must be able to miss two heartbeats without starting an election.
_HEARTBEATS_IN_ELECTION = 3
_LOG_ENTRIES = range(16, 1_000_000 + 1)
_KDF_THREADS = range(1, 1024 + 1)
_WRAP_TIMEOUT_S = range(1, 60 + 1)
# The log is in memory and read at the start. It must hold two of the longest entries.
_LOG_BYTES = range(64 * 1024, 1024**3 + 1)


class KdfProfile(enum.StrEnum):
    """The cost of hashing."""

    PRODUCTION = "production"
    TESTING = "testing"


class LogFormat(enum.StrEnum):
    """The format of a line of the log."""

    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class KdfConfig:
    """How passcodes and passwords are hashed."""

    profile: KdfProfile
    threads: int | None = None
    """How many hash passcodes. None: one for each core that the process may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """This node's id and data folder."""

    id: str
    data_dir: Path
    event_folder: Path | None = None
    """Where channels write files. None: this node writes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """A listener's address, certificate and key."""

    listen: Address
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MutualListenerConfig(ListenerConfig):
    """A listener that admits only callers with a certificate that *ca* signed."""

    ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminListenerConfig(ListenerConfig):
    """The listener for administrators and operators."""

    reflection: bool
    ca: Path | None = None
    """
    The authority of administrators' clients: the listener admits no other clients.

    None: clients need no certificate.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """The listener for Prometheus and probes."""

    listen: Address
    certificate: Path | None = None
    """None: plain HTTP."""
    key: Path | None = None
    ca: Path | None = None
    """Callers of `/metrics` must show a certificate of this authority."""
    token_file: Path | None = None
    """Callers of `/metrics` must send its first line as a bearer token."""

    @property
    def tls(self) -> ListenerConfig | None:
        """The certificate and key, and the authority if there is one; None: plain HTTP."""
        if self.certificate is None or self.key is None:
            return None
        if self.ca is None:
            return ListenerConfig(
                listen=self.listen, certificate=self.certificate, key=self.key
            )
        return MutualListenerConfig(
            listen=self.listen, certificate=self.certificate, key=self.key, ca=self.ca
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleConfig(ListenerConfig):
    """The listener for browsers."""

    addresses: Mapping[str, str] = field(hash=False)
    """Address of each node's console, which pages link to when their node is down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusConfig:
    """The listener for RADIUS clients (UDP)."""

    listen: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    """Timings of Raft, and the size of its log."""

    heartbeat_ms: int
    election_min_ms: int
    election_max_ms: int
    log_entries_max: int
    log_bytes_max: int
    log_entries_kept: int
    log_bytes_kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """The level and format of the log."""

    level: LogLevel
    format: LogFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of `node.toml`."""

    path: Path
    node: NodeConfig
    agents: MutualListenerConfig
    peers: MutualListenerConfig
    admin: AdminListenerConfig
    metrics: MetricsConfig | None
    """None: this node has no metrics listener."""
    console: ConsoleConfig | None
    """None: this node has no console."""
    radius: RadiusConfig | None = None
    """None: this node serves no RADIUS."""
    radsec: ListenerConfig | None = None
    """RADIUS over TLS. None: this node serves none."""
    http: ListenerConfig | None = None
    """The listener for agents over HTTP. None: this node has none."""
    http_plugins: tuple[PluginConfig, ...] = ()
    """What privacyIDEA's plug-ins may do there."""
    members: Mapping[str, Address] = field(hash=False)
    """Address of every member's peers listener, including this node's."""
    accept_keys: Mapping[str, str] = field(hash=False, default_factory=dict)
    """The keys that members may show beside the recorded ones (P5a), by node id."""
    keys_file: Path
    """The key ring, which the node writes when keys are rotated."""
    wrapping_key_file: Path | None = None
    """Encrypts the key ring."""
    wrap_command: tuple[str, ...] | None = None
    """The program, with arguments, that encrypts the key ring instead."""
    wrap_timeout_s: int = 10
    """The program may run for this long."""
    given_ring_file: Path | None = None
    """A key ring that the node copies if it has none yet."""
    raft: RaftConfig
    kdf: KdfConfig
    limits: LimitsConfig
    log: LogConfig
    audit_archive: Path | None = None
    """Where this node copies sealed audit events. None: nowhere."""

    @property
    def tls_listeners(self) -> Mapping[str, ListenerConfig]:
        """The listeners that present a certificate, by the names of their sections."""
        listeners: dict[str, ListenerConfig | None] = {
            "agents": self.agents,
            "peers": self.peers,
            "admin": self.admin,
            "console": self.console,
            "radsec": self.radsec,
            "http": self.http,
            "metrics": None if self.metrics is None else self.metrics.tls,
        }
        return {name: each for name, each in listeners.items() if each is not None}


_SECTIONS = (
    "node agents peers admin metrics console radius radsec http cluster keys raft kdf "
    "limits log audit"
)


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read and check `node.toml`. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    for name in tables:
        if name not in _SECTIONS.split():
            raise ConfigError(
                f"{path}: [{name}]: unknown section; the sections are "
                f"{', '.join(f'[{known}]' for known in _SECTIONS.split())}"
            )

    def section(name: str) -> Section:
        return Section(path, name, tables.get(name, {}))

    node = _node(section("node"))
    agents, peers, admin = section("agents"), section("peers"), section("admin")
    metrics, console, http = section("metrics"), section("console"), section("http")
    radsec, keys, audit = section("radsec"), section("keys"), section("audit")
    config = Config(
        path=path,
        accept_keys=peers.fingerprints("accept_keys"),
        node=node,
        agents=_mutual_listener(agents, "0.0.0.0:7300"),
        peers=_mutual_listener(peers, "0.0.0.0:7301"),
        admin=_admin_listener(admin),
        metrics=_metrics(metrics) if "metrics" in tables else None,
        console=_console(path, console) if "console" in tables else None,
        radius=_radius(section("radius")) if "radius" in tables else None,
        radsec=_listener(radsec, "0.0.0.0:2083") if "radsec" in tables else None,
        http_plugins=read_plugins(http),
        http=_listener(http, "0.0.0.0:7305") if "http" in tables else None,
        members=_members(path, section("cluster"), node.id),
        keys_file=keys.credential("file", environment),
        wrapping_key_file=keys.credential_or_none("wrapping_key", environment),
        wrap_command=keys.command_or_none("wrap_command"),
        wrap_timeout_s=keys.number("wrap_timeout_s", 10, _WRAP_TIMEOUT_S),
        given_ring_file=keys.credential_or_none("given", environment),
        raft=_raft(section("raft")),
        kdf=_kdf(section("kdf"), environment),
        limits=read_limits(section("limits")),
        log=_log(section("log")),
        audit_archive=audit.file_or_none("archive"),
    )
    keys.done()
    audit.done()
    ports: dict[int, str] = {}
    for part, name, listener in (
        (agents, "agents", config.agents),
        (peers, "peers", config.peers),
        (admin, "admin", config.admin),
        (metrics, "metrics", config.metrics),
        (console, "console", config.console),
        (radsec, "radsec", config.radsec),
        (http, "http", config.http),
    ):
        if listener is None:
            continue
        if other := ports.get(listener.listen.port):
            raise part.error(
                "listen",
                f"port {listener.listen.port} is also the port of [{other}]; "
                "every listener needs its own port",
            )
        ports[listener.listen.port] = name
    return config


def _node(section: Section) -> NodeConfig:
    node_id = section.text("id")
    if not _NODE_ID.fullmatch(node_id):
        raise section.error("id", f"{quoted(node_id)} is not an id: {_NODE_ID_WORDS}")
    node = NodeConfig(
        id=node_id,
        data_dir=section.file("data_dir"),
        event_folder=section.file_or_none("event_folder"),
    )
    section.done()
    return node


def _listener(section: Section, default: str) -> ListenerConfig:
    listener = ListenerConfig(
        listen=section.address("listen", default),
        certificate=section.file("certificate"),
        key=section.file("key"),
    )
    section.done()
    return listener


def _mutual_listener(section: Section, default: str) -> MutualListenerConfig:
    listener = MutualListenerConfig(
        listen=section.address("listen", default),
        certificate=section.file("certificate"),
        key=section.file("key"),
        ca=section.file("ca"),
    )
    section.done()
    return listener


def _admin_listener(section: Section) -> AdminListenerConfig:
    listener = AdminListenerConfig(
        listen=section.address("listen", "0.0.0.0:7304"),
        certificate=section.file("certificate"),
        key=section.file("key"),
        reflection=section.flag("reflection", default=False),
        ca=section.file_or_none("client_authority"),
    )
    section.done()
    return listener


def _metrics(section: Section) -> MetricsConfig:
    metrics = MetricsConfig(
        listen=section.address("listen", "127.0.0.1:7303"),
        certificate=section.file_or_none("certificate"),
        key=section.file_or_none("key"),
        ca=section.file_or_none("ca"),
        token_file=section.file_or_none("token_file"),
    )
    if (metrics.certificate is None) != (metrics.key is None):
        raise section.error("certificate", "set certificate and key, or neither")
    for name, value in (("ca", metrics.ca), ("token_file", metrics.token_file)):
        if value is not None and metrics.certificate is None:
            raise section.error(
                name,
                "needs certificate and key: without TLS others could read the metrics",
            )
    section.done()
    return metrics


def _console(path: Path, section: Section) -> ConsoleConfig:
    addresses = {}
    table = section.table_or_none("addresses")
    if table is not None:
        places = Section(path, "console.addresses", table)
        for node_id in table:
            address = places.text(node_id)
            if not _NODE_ID.fullmatch(node_id) or not _ORIGIN.fullmatch(address):
                raise places.error(
                    node_id,
                    f"{quoted(address)} is not the address of a node's console: "
                    'expected NODE = "https://HOST" or "https://HOST:PORT"',
                )
            addresses[node_id] = address
    console = ConsoleConfig(
        listen=section.address("listen", "0.0.0.0:7302"),
        certificate=section.file("certificate"),
        key=section.file("key"),
        addresses=addresses,
    )
    section.done()
    return console


def _radius(section: Section) -> RadiusConfig:
    radius = RadiusConfig(listen=section.addresses("listen", "0.0.0.0:1812"))
    section.done()
    return radius


def _members(path: Path, cluster: Section, node_id: str) -> Mapping[str, Address]:
    table = cluster.table("members")
    cluster.done()
    section = Section(path, "cluster.members", table)
    members = {}
    for member in table:
        if not _NODE_ID.fullmatch(member):
            raise section.error(member, f"not an id: {_NODE_ID_WORDS}")
        members[member] = section.address(member)
        twins = [other for other in members if members[other] == members[member]]
        if len(twins) > 1:
            raise section.error(
                member, f"{members[member]} is also the address of {twins[0]}"
            )
    if node_id not in members:
        raise section.error(
            node_id,
            "missing; [node] id must be one of the members, which are "
            + (", ".join(members) or "none"),
        )
    if len(members) > _MEMBERS_MAX:
        raise cluster.error(
            "members", f"{len(members)} members are more than {_MEMBERS_MAX}"
        )
    return members


def _raft(section: Section) -> RaftConfig:
    timings, entries, size = range(1, _TIMING_MS_MAX + 1), _LOG_ENTRIES, _LOG_BYTES
    raft = RaftConfig(
        heartbeat_ms=section.number("heartbeat_ms", 100, timings),
        election_min_ms=section.number("election_min_ms", 400, timings),
        election_max_ms=section.number("election_max_ms", 800, timings),
        log_entries_max=section.number("log_entries_max", 8192, entries),
        log_bytes_max=section.number("log_bytes_max", 32 * 1024**2, size),
        log_entries_kept=section.number(
            "log_entries_kept", 1024, range(1, entries.stop)
        ),
        log_bytes_kept=section.number(
            "log_bytes_kept", 4 * 1024**2, range(1, size.stop)
        ),
    )
    section.done()
    for name in ("log_entries", "log_bytes"):
        kept, most = getattr(raft, f"{name}_kept"), getattr(raft, f"{name}_max")
        if 2 * kept > most:
            raise section.error(
                f"{name}_kept", f"{kept} is more than half of {name}_max ({most})"
            )
    if raft.election_min_ms <= _HEARTBEATS_IN_ELECTION * raft.heartbeat_ms:
        raise section.error(
            "election_min_ms",
            f"{raft.election_min_ms} must be more than {_HEARTBEATS_IN_ELECTION} times "
            f"heartbeat_ms ({raft.heartbeat_ms})",
        )
    if raft.election_max_ms <= raft.election_min_ms:
        raise section.error(
            "election_max_ms",
            f"{raft.election_max_ms} must be more than election_min_ms "
            f"({raft.election_min_ms})",
        )
    return raft


def _kdf(section: Section, environment: Mapping[str, str]) -> KdfConfig:
    kdf = KdfConfig(
        profile=KdfProfile(
            section.option("profile", KdfProfile, KdfProfile.PRODUCTION)
        ),
        threads=section.number_or_none("threads", _KDF_THREADS),
    )
    section.done()
    if kdf.profile is KdfProfile.TESTING and environment.get(TESTING) != "1":
        raise section.error(
            "profile",
            "'testing' makes codes and PINs cheap to guess: use 'production', or set "
            f"{TESTING}=1 in the environment of a test",
        )
    return kdf


def _log(section: Section) -> LogConfig:
    log = LogConfig(
        level=LogLevel(section.option("level", LogLevel, LogLevel.INFO)),
        format=LogFormat(section.option("format", LogFormat, LogFormat.TEXT)),
    )
    section.done()
    return log

# SPDX-License-Identifier: Apache-2.0
"""
`node.toml`: what differs between nodes and machines; every default is here.

Read and checked once, at the start. What the cluster must agree on (policy) is
replicated and never here. `deploy/node.toml` is the annotated sample: a new key
goes there too.
"""

import enum
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TESTING = "SPARECODE_TESTING"
"""The environment variable that lets a node use the testing profile of hashing."""

_NODE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_PORT_MAX = 65535
_MEMBERS_MAX = 9
_TIMING_MS_MAX = 60_000
# A follower must be able to miss two heartbeats without calling an election.
_HEARTBEATS_IN_ELECTION = 3


class ConfigError(Exception):
    """The file is not a configuration: one line that names file, section and key."""


class KdfProfile(enum.StrEnum):
    """How costly hashing is."""

    PRODUCTION = "production"
    TESTING = "testing"


class LogFormat(enum.StrEnum):
    """How a line of the log looks."""

    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    """From which level on something is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name, IPv4 address, or IPv6 address in brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return the form that gRPC takes."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Who this node is, and where its state lies."""

    id: str
    data_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """Where a listener listens, and who it is."""

    listen: Address
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MutualListenerConfig(ListenerConfig):
    """A listener that lets in only whom *ca* has signed."""

    ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminListenerConfig(ListenerConfig):
    """The listener for administrators and operators."""

    reflection: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    """Raft's timings."""

    heartbeat_ms: int
    election_min_ms: int
    election_max_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What is logged, and how."""

    level: LogLevel
    format: LogFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole of `node.toml`."""

    path: Path
    node: NodeConfig
    agents: MutualListenerConfig
    peers: MutualListenerConfig
    admin: AdminListenerConfig
    members: Mapping[str, Address] = field(hash=False)
    """Every member's peers listener, this node's included."""
    keys_file: Path
    raft: RaftConfig
    kdf_profile: KdfProfile
    log: LogConfig


class _Section:
    """One table of the file. Every key is asked for once; `done` finds the rest."""

    def __init__(self, path: Path, name: str, table: object) -> None:
        if not isinstance(table, dict):
            raise ConfigError(
                f"{path}: {name}: expected the section [{name}], got {_shown(table)}"
            )
        self._path = path
        self._name = name
        self._table: dict[str, object] = table
        self._asked: list[str] = []

    def error(self, key: str, message: str) -> ConfigError:
        """Return the one clear line."""
        return ConfigError(f"{self._path}: [{self._name}] {key}: {message}")

    def done(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self._table:
            if key not in self._asked:
                raise self.error(
                    key, f"unknown key; allowed are {', '.join(self._asked)}"
                )

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text that is not empty."""
        self._asked.append(key)
        value = self._table.get(key, default)
        if value is None:
            raise self.error(key, "missing; a text is needed")
        if not isinstance(value, str) or not value:
            raise self.error(key, f"expected a text, got {_shown(value)}")
        return value

    def table(self, key: str) -> dict[str, object]:
        """Return a table of its own."""
        self._asked.append(key)
        value = self._table.get(key)
        if not isinstance(value, dict) or not value:
            raise self.error(
                key,
                f"{'missing' if value is None else f'got {_shown(value)}'}; "
                f'needed is [{self._name}.{key}] with lines like n1 = "HOST:PORT"',
            )
        return value

    def file(self, key: str) -> Path:
        """Return a path; a relative one starts at the folder of the file."""
        return self._path.parent.absolute() / Path(self.text(key)).expanduser()

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        self._asked.append(key)
        value = self._table.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, got {_shown(value)}")
        return value

    def milliseconds(self, key: str, default: int) -> int:
        """Return a duration."""
        self._asked.append(key)
        value = self._table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"expected a whole number, got {_shown(value)}")
        if not 1 <= value <= _TIMING_MS_MAX:
            raise self.error(key, f"{value} is not from 1 to {_TIMING_MS_MAX}")
        return value

    def address(self, key: str, default: str | None = None) -> Address:
        """Return `host:port`."""
        text = self.text(key, default)
        host, _, port = text.rpartition(":")
        if (
            not _HOST.fullmatch(host)
            or not port.isdecimal()
            or not 1 <= int(port) <= _PORT_MAX
        ):
            raise self.error(
                key,
                f"{_shown(text)} is not HOST:PORT with a port from 1 to {_PORT_MAX} "
                "(an IPv6 address stands in brackets)",
            )
        return Address(host, int(port))

    def option(self, key: str, options: type[enum.StrEnum], default: str) -> str:
        """Return one of *options*."""
        value = self.text(key, default)
        if value not in list(options):
            raise self.error(
                key, f"{_shown(value)} is none of {', '.join(map(str, options))}"
            )
        return value


def _shown(value: object) -> str:
    """Quote a value of the file, shortened: nobody reads a whole table in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004


_SECTIONS = (
    "node",
    "agents",
    "peers",
    "admin",
    "cluster",
    "keys",
    "raft",
    "kdf",
    "log",
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
        if name not in _SECTIONS:
            raise ConfigError(
                f"{path}: [{name}]: unknown section; allowed are "
                f"{', '.join(f'[{known}]' for known in _SECTIONS)}"
            )

    def section(name: str) -> _Section:
        return _Section(path, name, tables.get(name, {}))

    node = _node(section("node"))
    agents, peers, admin = section("agents"), section("peers"), section("admin")
    keys = section("keys")
    config = Config(
        path=path,
        node=node,
        agents=_mutual_listener(agents, "0.0.0.0:7300"),
        peers=_mutual_listener(peers, "0.0.0.0:7301"),
        admin=_admin_listener(admin),
        members=_members(path, section("cluster"), node.id),
        keys_file=keys.file("file"),
        raft=_raft(section("raft")),
        kdf_profile=_kdf(section("kdf"), environment),
        log=_log(section("log")),
    )
    keys.done()
    seen: dict[int, str] = {}
    for part, name, listener in (
        (agents, "agents", config.agents),
        (peers, "peers", config.peers),
        (admin, "admin", config.admin),
    ):
        if other := seen.get(listener.listen.port):
            raise part.error(
                "listen",
                f"port {listener.listen.port} is that of [{other}] too; "
                "every listener needs its own",
            )
        seen[listener.listen.port] = name
    return config


def _node(section: _Section) -> NodeConfig:
    node_id = section.text("id")
    if not _NODE_ID.fullmatch(node_id):
        raise section.error(
            "id", f"{_shown(node_id)} is not 1 to 63 of a-z, 0-9 and -, not at an end"
        )
    node = NodeConfig(id=node_id, data_dir=section.file("data_dir"))
    section.done()
    return node


def _mutual_listener(section: _Section, default: str) -> MutualListenerConfig:
    listener = MutualListenerConfig(
        listen=section.address("listen", default),
        certificate=section.file("certificate"),
        key=section.file("key"),
        ca=section.file("ca"),
    )
    section.done()
    return listener


def _admin_listener(section: _Section) -> AdminListenerConfig:
    listener = AdminListenerConfig(
        listen=section.address("listen", "0.0.0.0:7304"),
        certificate=section.file("certificate"),
        key=section.file("key"),
        reflection=section.flag("reflection", default=False),
    )
    section.done()
    return listener


def _members(path: Path, cluster: _Section, node_id: str) -> Mapping[str, Address]:
    table = cluster.table("members")
    cluster.done()
    section = _Section(path, "cluster.members", table)
    members = {}
    for member in table:
        if not _NODE_ID.fullmatch(member):
            raise section.error(
                member, "a node's id is 1 to 63 of a-z, 0-9 and -, not at an end"
            )
        members[member] = section.address(member)
        twins = [other for other in members if members[other] == members[member]]
        if len(twins) > 1:
            raise section.error(
                member, f"{members[member]} is the address of {twins[0]} too"
            )
    if node_id not in members:
        raise section.error(
            node_id,
            "missing; [node] id must be one of the members, and they are "
            + (", ".join(members) or "none"),
        )
    if len(members) > _MEMBERS_MAX:
        raise cluster.error("members", f"{len(members)} are more than {_MEMBERS_MAX}")
    return members


def _raft(section: _Section) -> RaftConfig:
    raft = RaftConfig(
        heartbeat_ms=section.milliseconds("heartbeat_ms", 100),
        election_min_ms=section.milliseconds("election_min_ms", 400),
        election_max_ms=section.milliseconds("election_max_ms", 800),
    )
    section.done()
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


def _kdf(section: _Section, environment: Mapping[str, str]) -> KdfProfile:
    profile = KdfProfile(section.option("profile", KdfProfile, KdfProfile.PRODUCTION))
    section.done()
    if profile is KdfProfile.TESTING and environment.get(TESTING) != "1":
        raise section.error(
            "profile",
            "'testing' makes codes and PINs cheap to guess; it needs "
            f"{TESTING}=1 in the environment, else 'production'",
        )
    return profile


def _log(section: _Section) -> LogConfig:
    log = LogConfig(
        level=LogLevel(section.option("level", LogLevel, LogLevel.INFO)),
        format=LogFormat(section.option("format", LogFormat, LogFormat.TEXT)),
    )
    section.done()
    return log

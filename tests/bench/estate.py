# SPDX-License-Identifier: Apache-2.0
"""A populated cluster of real processes, and the loads of its clients."""

import contextlib
import itertools
import json
import math
import os
import time
import tomllib
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import grpc
from google.protobuf.message import Message
from local_cluster.cluster import ADMINISTRATOR, AGENT, LocalCluster, LocalNode
from local_cluster.setup import node_settings, set_up

from sparecode.v1 import (
    authentication_pb2,
    cluster_pb2,
    cluster_pb2_grpc,
    emergency_access_pb2,
    sessions_pb2,
    sessions_pb2_grpc,
    tokens_pb2,
    types_pb2,
)
from sparecode_node.membership.node_file import node_toml
from sparecode_node.services.secrets.cores import usable_cores
from tests.bench.load import WARM_UP, Load, Measurement, do
from tests.bench.population import CODES_EACH, PIN, Population, populate

AUTHENTICATE = "/sparecode.v1.AuthenticationService/Authenticate"
ISSUE = "/sparecode.v1.EmergencyAccessService/IssueTokencodes"
GET_TOKEN = "/sparecode.v1.TokenService/GetToken"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 60.0
IDLE_LOOK_S, IDLE_TIMEOUT_S = 5.0, 300.0
IDLE_SHARE = 0.15
"""Of a core. Heartbeats and timers take less, and a background task works a third of the time."""
READ = 15_000
"""Tokens that a load of reads looks up, at most."""
STEP_S = 30
"""How long a token shows the same tokencode."""
BUILT = "built.json"
"""In the folder of an estate that is complete: its users, and how many codes were used."""


class OtherEstateError(Exception):
    """The folder has another estate, or one that is not complete."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The measurement of a load, and its cost on the nodes."""

    measured: Measurement
    cpu_ms: dict[str, float]
    """Node -> CPU milliseconds per call, shed calls included."""
    entries: int
    """Log entries committed meanwhile."""


def hash_with(node: LocalNode, threads: int | None) -> None:
    """Make a node hash passcodes with *threads* from its next start on; None: as many as cores."""
    settings = tomllib.loads(node.config.read_text())
    settings["kdf"].pop("threads", None)
    if threads is not None:
        settings["kdf"]["threads"] = threads
    node.config.write_text(node_toml(settings))


class Estate:
    """
    The cluster, as a context manager. Each code is used once over all loads.

    A folder that has an estate of as many users is used again, and its codes that were
    not used before.

    All nodes share the cores of one machine. Linux divides them evenly between
    sessions (sched(7), autogroup) and compares priorities within one session only.
    So all nodes share one session, unless *own_sessions*. In one session, priorities
    hold between all threads, and hashing delays a node's answers as little as on a
    machine of its own.
    """

    def __init__(
        self,
        directory: Path,
        population: Population,
        *,
        nodes: int = 3,
        own_sessions: bool = False,
        build: Callable[[LocalCluster, Population], object] = populate,
    ) -> None:
        """*build* gives the estate to the nodes. Raises `OtherEstateError`."""
        self.population, self._taken = population, 0
        self._built = directory / BUILT
        if self._built.exists():
            self._use_again(directory)
        else:
            if directory.exists() and any(directory.iterdir()):
                raise OtherEstateError(f"{directory} has no complete estate: delete it")
            self._build(directory, nodes, build)
        for node in self.cluster.nodes:
            node.own_session = own_sessions
        self._codes = self._all_codes()
        for _ in itertools.islice(self._codes, self._taken):
            pass
        self._shown: dict[int, str] = {}
        self._owner_of: dict[str, int] = {}
        self._tokens = self._all_tokens()
        self.bearer = ""

    def _build(
        self,
        directory: Path,
        nodes: int,
        build: Callable[[LocalCluster, Population], object],
    ) -> None:
        testing = self.population.profile == "testing"
        self.cluster = set_up(directory, nodes=nodes, testing=testing)
        if not testing:
            for node in self.cluster.nodes:
                _lift_limits(node.config)
        build(self.cluster, self.population)
        self._write_built()

    def _use_again(self, directory: Path) -> None:
        built = json.loads(self._built.read_text())
        if built["users"] != self.population.users:
            raise OtherEstateError(
                f"{directory} has an estate of {built['users']} users, not "
                f"{self.population.users}"
            )
        self.population = replace(self.population, usable=built["usable"])
        self._taken = built["taken"]
        self.cluster = LocalCluster.load(directory)
        for node in self.cluster.nodes:
            # The folder may have been moved, and a run may have changed the settings.
            node.config.write_text(node_toml(node_settings(self.cluster, node, {})))

    def _write_built(self) -> None:
        population = self.population
        built = {
            "users": population.users,
            "usable": population.usable,
            "taken": self._taken,
        }
        self._built.write_text(json.dumps(built) + "\n")

    def __enter__(self) -> Self:
        self.start()
        wait_idle(self.cluster.nodes)
        self.bearer = self._sign_in()  # The wait may take longer than a session lasts.
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.kill()

    def start(self) -> float:
        """Start all nodes and sign in; return the seconds until all were ready."""
        began = time.perf_counter()
        self.cluster.start(timeout_s=300)
        took = time.perf_counter() - began
        self.bearer = self._sign_in()
        return took

    # --- Requests of clients

    def _all_codes(self) -> Iterator[str]:
        users = [
            number
            for number in self.population.signing_in
            if self.population.has_codes(number)
        ]
        for ordinal in range(1, CODES_EACH + 1):
            for number in users:
                passcode = PIN + self.population.code(number, ordinal)
                yield self._request(number, passcode)

    def _all_tokens(self) -> Iterator[str]:
        """Yield a request of each token in turn, with its current tokencode, once (K1)."""
        owners = [
            number
            for number in self.population.signing_in
            if not self.population.has_codes(number)
        ]
        passed_by = 0
        for number in itertools.cycle(owners):
            code = self.population.tokencode(number, time.time())
            if self._shown.get(number) == code:
                passed_by += 1
                if passed_by == len(owners):
                    return  # Every current tokencode is used.
                continue
            passed_by, self._shown[number] = 0, code
            request = self._request(number, PIN + code)
            self._owner_of[request] = number
            yield request

    def _request(self, number: int, passcode: str) -> str:
        return (
            authentication_pb2.AuthenticateRequest(
                request_id=str(uuid.uuid4()),
                username=self.population.username(number),
                passcode=passcode,
                client_address="203.0.113.7",
                resource="ssh://build.example.org",
            )
            .SerializeToString()
            .hex()
        )

    def take(self, kind: str, count: int, *, or_fewer: bool = False) -> tuple[str, ...]:
        """
        Return *count* authentication requests, none of which was sent before.

        Raises `ValueError` if there are not as many codes, or none at all (*or_fewer*).
        With tokencodes, half as many are enough.
        """
        if kind == "token":
            self._owner_of.clear()
        taken = tuple(
            itertools.islice(self._codes if kind == "code" else self._tokens, count)
        )
        if kind == "token" and len(taken) < count:
            few = len(taken) < count / 2
            if few:
                time.sleep(STEP_S - time.time() % STEP_S)
            # In the next time step every token shows another tokencode.
            self._tokens = self._all_tokens()
            if few:  # Otherwise the load would end at once.
                taken = tuple(itertools.islice(self._tokens, count))
        if not taken or (kind == "code" and len(taken) < count and not or_fewer):
            if kind == "code":
                self._codes = iter(taken)
            raise ValueError(
                f"the estate has {len(taken)} unused {kind}s left, not {count}"
            )
        if kind == "code":
            self._take(len(taken))
        return taken

    def _take(self, count: int) -> None:
        """Record how many codes were taken; less than 0: returned."""
        self._taken += count
        self._write_built()

    def give_back(self, kind: str, requests: Sequence[str]) -> None:
        """Return requests that were taken last and not sent."""
        if kind == "code":
            self._codes = itertools.chain(requests, self._codes)
            self._take(-len(requests))
        else:  # Its tokencode may be an old one by then: its token's turn comes again.
            for request in requests:
                del self._shown[self._owner_of.pop(request)]

    # --- Loads

    def authenticate(
        self,
        *,
        clients: int,
        seconds: float,
        calls: int,
        kind: str = "code",
        via: list[LocalNode] | None = None,
        patient: bool = False,
        keeps_answers: bool = False,
    ) -> Run:
        """
        Let clients authenticate; *patient* ones wait as long as retry hints say.

        Every passcode is right, so a refusal is an error. A single client calls a
        replica, as two of three clients do. Replicas take longer than the primary.

        Raises `ValueError` after a refusal, and if the load ended because the estate
        had fewer codes left than *calls*.
        """
        certificates = self.cluster.certificates
        alone = clients == 1 and len(self.cluster.nodes) > 1
        nodes = via or ([self.replica()] if alone else self.cluster.nodes)
        requests = self.take(kind, calls, or_fewer=True)
        run = self.do(
            Load(
                addresses=tuple(node.agents_address for node in nodes),
                ca=str(self.cluster.members_ca),
                certificate=str(certificates / f"{AGENT}.pem"),
                key=str(certificates / f"{AGENT}.key"),
                method=AUTHENTICATE,
                requests=requests,
                clients=clients,
                seconds=seconds,
                patient=patient,
                keeps_answers=keeps_answers,
            )
        )
        self.give_back(kind, requests[run.measured.sent :])
        if kind == "code" and run.measured.sent == len(requests) < calls:
            # It did not last as long as reported.
            raise ValueError(f"the estate had {len(requests)} unused codes left")
        refused = run.measured.answered - run.measured.accepted
        if refused:
            raise ValueError(
                f"{refused} of {run.measured.answered} right passcodes were refused"
            )
        return run

    def issue(
        self,
        *,
        clients: int,
        seconds: float,
        count: int,
        via: list[LocalNode] | None = None,
        numbers: Iterable[int] = range(3, 40_000, 4),
    ) -> Run:
        """Let administrators issue sets of *count* codes in one step, to these users."""
        requests = [
            emergency_access_pb2.IssueTokencodesRequest(
                request_id=str(uuid.uuid4()),
                serial=self.population.serial(number % self.population.users),
                count=count,
                recovery_policy=types_pb2.RECOVERY_POLICY_DENY,
            )
            for number in numbers
        ]
        return self.administrate(
            ISSUE, requests, clients=clients, seconds=seconds, via=via
        )

    def read(
        self,
        *,
        clients: int,
        seconds: float,
        stale_ok: bool,
        via: list[LocalNode] | None = None,
    ) -> Run:
        """Let administrators look up tokens."""
        requests = [
            tokens_pb2.GetTokenRequest(
                serial=self.population.serial(number), stale_ok=stale_ok
            )
            for number in range(
                0, self.population.users, max(7, self.population.users // READ)
            )
        ]
        return self.administrate(
            GET_TOKEN,
            requests,
            clients=clients,
            seconds=seconds,
            repeat=True,
            via=via,
        )

    def administrate(
        self,
        method: str,
        requests: Sequence[Message],
        *,
        clients: int,
        seconds: float,
        repeat: bool = False,
        via: list[LocalNode] | None = None,
    ) -> Run:
        """Let clients call a method of the listener for administrators."""
        return self.do(
            Load(
                addresses=tuple(n.admin_address for n in via or self.cluster.nodes),
                ca=str(self.cluster.members_ca),
                method=method,
                requests=tuple(each.SerializeToString().hex() for each in requests),
                metadata=(("authorization", f"Bearer {self.bearer}"),),
                repeat=repeat,
                clients=clients,
                seconds=seconds,
            )
        )

    def do(self, load: Load) -> Run:
        """Run a load, and measure its cost on the nodes."""
        before, index = self._cpu_s(), self.commit_index()
        measured = do(load)
        entries = self.commit_index() - index
        calls = max(1, sum(measured.codes.values()))
        # The CPU time includes the warm-up, whose calls are not counted.
        share = 1 - WARM_UP
        cpu_ms = {
            node: (after - before[node]) * 1000 * share / calls
            for node, after in self._cpu_s().items()
        }
        return Run(measured=measured, cpu_ms=cpu_ms, entries=entries)

    # --- Observing nodes

    def _cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of each node's process."""
        return {
            node.node_id: cpu_s(node.pid) for node in self.cluster.nodes if node.pid
        }

    def share_cores(self) -> None:
        """
        Give each node its part of the cores for hashing, from its next start on.

        So docs/configuration.md advises for nodes on one machine.
        """
        nodes = self.cluster.nodes
        for node in nodes:
            hash_with(node, math.ceil(usable_cores() / len(nodes)))

    def take_all_cores(self) -> None:
        """Let each node hash with all cores again, from its next start on."""
        for node in self.cluster.nodes:
            hash_with(node, None)

    def memory_mb(self) -> dict[str, float]:
        """Return the resident memory of each node."""
        return {
            node.node_id: resident_mb(node.pid)
            for node in self.cluster.nodes
            if node.pid
        }

    def snapshot_s(self, node: LocalNode, work: str) -> float:
        """Return the seconds that a node has taken or fetched snapshots since its start."""
        return _metric(node, f'sparecode_snapshot_seconds_sum{{work="{work}"}}')

    def hashes(self) -> float:
        """Return the hashes that all nodes have computed for passcodes."""
        name = 'sparecode_kdf_computed_total{lane="authenticating"}'
        return sum(_metric(node, name) for node in self.cluster.nodes)

    def primary(self) -> LocalNode:
        """Return the node that is the primary now."""
        return self.cluster.node(self.status().primary)

    def replica(self) -> LocalNode:
        """Return a node that is not the primary."""
        primary = self.status().primary
        return next(n for n in self.cluster.nodes if n.node_id != primary)

    def term(self) -> int:
        """Return the current term, which counts elections."""
        return max(member.term for member in self.status().members)

    def commit_index(self) -> int:
        """Return the commit index of the cluster."""
        return max(member.commit_index for member in self.status().members)

    def status(self) -> cluster_pb2.GetStatusResponse:
        """Return the cluster's status from a running node, once there is a primary."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for node in self.cluster.nodes:
                if not node.running:
                    continue
                with (
                    # Such as a node that starts: it does not listen yet.
                    contextlib.suppress(grpc.RpcError),
                    self._admin_channel(node) as channel,
                ):
                    stub = cluster_pb2_grpc.ClusterServiceStub(channel)
                    status = stub.GetStatus(
                        cluster_pb2.GetStatusRequest(),
                        metadata=(("authorization", f"Bearer {self.bearer}"),),
                        timeout=PATIENCE_S,
                    )
                    if status.primary:
                        return status
            if time.monotonic() > deadline:
                raise TimeoutError("there is no primary")

    def stop(self) -> None:
        """Stop all nodes."""
        for node in self.cluster.nodes:
            node.stop()

    def start_in_one_session(self) -> None:
        """Make nodes share one session from their next start on."""
        for node in self.cluster.nodes:
            node.own_session = False

    def _sign_in(self) -> str:
        running = next(node for node in self.cluster.nodes if node.running)
        with self._admin_channel(running) as channel:
            answer = sessions_pb2_grpc.SessionServiceStub(channel).Login(
                sessions_pb2.LoginRequest(
                    request_id=str(uuid.uuid4()),
                    administrator=ADMINISTRATOR,
                    password=self.cluster.password,
                ),
                timeout=PATIENCE_S,
            )
        return str(answer.session)

    def _admin_channel(self, node: LocalNode) -> grpc.Channel:
        ca = self.cluster.members_ca.read_bytes()
        return grpc.secure_channel(node.admin_address, grpc.ssl_channel_credentials(ca))


def _metric(node: LocalNode, name: str) -> float:
    """Return the value of a metric of a node, 0 if there is none."""
    with urllib.request.urlopen(f"http://{node.metrics_address}/metrics") as page:
        text = page.read().decode()
    return sum(
        float(line.removeprefix(f"{name} "))
        for line in text.splitlines()
        if line.startswith(f"{name} ")
    )


def _lift_limits(config: Path) -> None:
    """Lift the limits of a single caller, because one agent makes all calls here."""
    text = config.read_text()
    text += "\n[limits]\n" + "\n".join(
        f"{name} = 1000000"
        for name in (
            "agent_per_s",
            "client_address_per_s",
            "user_per_s",
            "sign_in_per_s",
            "peer_per_s",
            "codes_per_s",
            "session_per_s",
        )
    )
    config.write_text(text + "\n")


def wait_idle(nodes: Sequence[LocalNode]) -> None:
    """
    Return when the nodes have no work left from their first start.

    They look for seals of older keys, for example. Raises `TimeoutError`.
    """
    deadline = time.monotonic() + IDLE_TIMEOUT_S
    while time.monotonic() < deadline:
        before = [cpu_s(node.pid) for node in nodes if node.pid]
        time.sleep(IDLE_LOOK_S)
        after = [cpu_s(node.pid) for node in nodes if node.pid]
        if all(
            now - then < IDLE_SHARE * IDLE_LOOK_S
            for then, now in zip(before, after, strict=True)
        ):
            return
    raise TimeoutError(f"the nodes still work {IDLE_TIMEOUT_S:.0f} s after their start")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and of its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # Of the process and its ended children: a child reads the whole state for a
    # snapshot (proc_pid_stat(5)).
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    resident = memory_mb(pid, "VmRSS")
    if resident is None:
        raise ValueError(f"process {pid} has no VmRSS")
    return resident


def memory_mb(pid: int, field: str) -> float | None:
    """Return a field of the memory of a process, None if it is gone (proc_pid_status(5))."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return None

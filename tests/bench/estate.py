# SPDX-License-Identifier: Apache-2.0
"""A populated cluster of real processes, and what its clients send."""

import itertools
import os
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
from google.protobuf.message import Message
from local_cluster.cluster import ADMINISTRATOR, AGENT, LocalNode
from local_cluster.setup import set_up

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
from tests.bench.load import WARM_UP, Load, Measurement, do
from tests.bench.population import CODES_EACH, PIN, Population, populate

AUTHENTICATE = "/sparecode.v1.AuthenticationService/Authenticate"
ISSUE = "/sparecode.v1.EmergencyAccessService/IssueTokencodes"
GET_TOKEN = "/sparecode.v1.TokenService/GetToken"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 60.0
STEP_S = 30
"""So long a token shows the same."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A load, and what it cost the nodes."""

    measured: Measurement
    cpu_ms: dict[str, float]
    """Node -> milliseconds of a core for each call, also those that were shed."""
    entries: int
    """Log entries that were committed meanwhile."""


class Estate:
    """
    The cluster; use it as a context. Codes are spent once, over all loads.

    Everything that is measured shares the cores of one machine, where Linux deals
    them out evenly between sessions (sched(7), autogroup), and looks at priorities
    within one only. So all is one session, unless *own_sessions*: what a node's
    hashing leaves to its answers is then the same as on a machine of its own.
    """

    def __init__(
        self,
        directory: Path,
        population: Population,
        *,
        nodes: int = 3,
        own_sessions: bool = False,
    ) -> None:
        self.population = population
        testing = population.profile == "testing"
        self.cluster = set_up(directory, nodes=nodes, testing=testing)
        if not testing:
            for node in self.cluster.nodes:
                _lift_limits(node.config)
        for node in self.cluster.nodes:
            node.own_session = own_sessions
        populate(self.cluster, population)
        self._codes = self._all_codes()
        self._shown: dict[int, str] = {}
        self._tokens = self._all_tokens()
        self.bearer = ""

    def __enter__(self) -> Self:
        self.start()
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

    # --- What clients know

    def _all_codes(self) -> Iterator[str]:
        everybody = [
            number
            for number in range(self.population.users)
            if self.population.has_codes(number)
        ]
        for ordinal in range(1, CODES_EACH + 1):
            for number in everybody:
                passcode = PIN + self.population.code(number, ordinal)
                yield self._request(number, passcode)

    def _all_tokens(self) -> Iterator[str]:
        """Give each token in turn, with the tokencode of the moment, once (K1)."""
        owners = [
            number
            for number in range(self.population.users)
            if not self.population.has_codes(number)
        ]
        for number in itertools.cycle(owners):
            code = self.population.tokencode(number, time.time())
            if self._shown.get(number) == code:
                return  # Everybody's is used up.
            self._shown[number] = code
            yield self._request(number, PIN + code)

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

    def take(self, kind: str, count: int) -> tuple[str, ...]:
        """Return so many requests to authenticate, none of which was sent before."""
        source = self._codes if kind == "code" else self._tokens
        taken = tuple(itertools.islice(source, count))
        if kind == "token" and len(taken) < count:
            few = len(taken) < count / 2
            if few:
                time.sleep(STEP_S - time.time() % STEP_S)
            # In the next time step they all show another one.
            self._tokens = self._all_tokens()
            if few:  # Else the load would be over before it is one.
                taken = tuple(itertools.islice(self._tokens, count))
        if not taken or (kind == "code" and len(taken) < count):
            # A load that ends early has not lasted for as long as is said of it.
            raise ValueError(
                f"the estate has {len(taken)} unused {kind}s left, not {count}"
            )
        return taken

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
    ) -> Run:
        """
        Have clients authenticate; *patient*: they wait as they are told.

        Every passcode is right, so a refusal is an error, and no fast answer. One
        client calls a replica, as two of three do: its call takes longer than one
        that the primary gets, whichever node that is today.
        """
        certificates = self.cluster.certificates
        alone = clients == 1 and len(self.cluster.nodes) > 1
        nodes = via or ([self.replica()] if alone else self.cluster.nodes)
        run = self.do(
            Load(
                addresses=tuple(node.agents_address for node in nodes),
                ca=str(self.cluster.members_ca),
                certificate=str(certificates / f"{AGENT}.pem"),
                key=str(certificates / f"{AGENT}.key"),
                method=AUTHENTICATE,
                requests=self.take(kind, calls),
                clients=clients,
                seconds=seconds,
                patient=patient,
            )
        )
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
    ) -> Run:
        """Have administrators issue sets of so many codes, in one step."""
        requests = [
            emergency_access_pb2.IssueTokencodesRequest(
                request_id=str(uuid.uuid4()),
                serial=self.population.serial(number % self.population.users),
                count=count,
                recovery_policy=types_pb2.RECOVERY_POLICY_DENY,
            )
            for number in range(3, 40_000, 4)
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
        """Have administrators look tokens up."""
        requests = [
            tokens_pb2.GetTokenRequest(
                serial=self.population.serial(number), stale_ok=stale_ok
            )
            for number in range(0, self.population.users, 7)
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
        """Have clients call a method of the listener for administrators."""
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
        """Do a load, and see what it costs the nodes."""
        before, index = self._cpu_s(), self.commit_index()
        measured = do(load)
        entries = self.commit_index() - index
        calls = max(1, sum(measured.codes.values()))
        # What was not counted, as warm-up, was paid for all the same.
        share = 1 - WARM_UP
        cpu_ms = {
            node: (after - before[node]) * 1000 * share / calls
            for node, after in self._cpu_s().items()
        }
        return Run(measured=measured, cpu_ms=cpu_ms, entries=entries)

    # --- Looking

    def _cpu_s(self) -> dict[str, float]:
        """Return how long each node's process has been on a core."""
        return {
            node.node_id: _cpu_s(node.pid) for node in self.cluster.nodes if node.pid
        }

    def memory_mb(self) -> dict[str, float]:
        """Return the resident memory of each node."""
        return {
            node.node_id: _resident_mb(node.pid)
            for node in self.cluster.nodes
            if node.pid
        }

    def snapshot_s(self, node: LocalNode, work: str) -> float:
        """Return how long a node has taken or fetched snapshots since its start."""
        with urllib.request.urlopen(f"http://{node.metrics_address}/metrics") as page:
            text = page.read().decode()
        name = f'sparecode_snapshot_seconds_sum{{work="{work}"}} '
        return sum(
            float(line.removeprefix(name))
            for line in text.splitlines()
            if line.startswith(name)
        )

    def primary(self) -> LocalNode:
        """Return the node that is the primary now."""
        return self.cluster.node(self.status().primary)

    def replica(self) -> LocalNode:
        """Return one that is not."""
        primary = self.status().primary
        return next(n for n in self.cluster.nodes if n.node_id != primary)

    def term(self) -> int:
        """Return how many elections there have been, as Raft counts them."""
        return max(member.term for member in self.status().members)

    def commit_index(self) -> int:
        """Return how far the log is committed."""
        return max(member.commit_index for member in self.status().members)

    def status(self) -> cluster_pb2.GetStatusResponse:
        """Return what a node says of the cluster, once there is a primary."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with self._admin_channel() as channel:
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
        """Have nodes start one session, from the next time on."""
        for node in self.cluster.nodes:
            node.own_session = False

    def _sign_in(self) -> str:
        with self._admin_channel() as channel:
            answer = sessions_pb2_grpc.SessionServiceStub(channel).Login(
                sessions_pb2.LoginRequest(
                    request_id=str(uuid.uuid4()),
                    administrator=ADMINISTRATOR,
                    password=self.cluster.password,
                ),
                timeout=PATIENCE_S,
            )
        return str(answer.session)

    def _admin_channel(self) -> grpc.Channel:
        node = next(node for node in self.cluster.nodes if node.running)
        ca = self.cluster.members_ca.read_bytes()
        return grpc.secure_channel(node.admin_address, grpc.ssl_channel_credentials(ca))


def _lift_limits(config: Path) -> None:
    """Take the limits of a single caller away: here, one agent is all of them."""
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
        )
    )
    config.write_text(text + "\n")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # Of the process itself, and of those that it has started and that have ended:
    # one of them reads the whole state for a snapshot (proc_pid_stat(5)).
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} does not say how much memory it has")

# SPDX-License-Identifier: Apache-2.0
"""
Compare RADIUS and HTTP with gRPC, and the times of refusals (A6).

`make bench-doors`. Three nodes with cheap hashing; the doors take turns. Only what was
measured in the same round is compared, and each target says whether it is met, missed, or
the machine was too noisy to tell (`paired`).
"""

import argparse
import contextlib
import json
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from local_cluster.cluster import AGENT, HOST, free_ports
from pyrad.client import Client
from pyrad.dictionary import Dictionary
from pyrad.packet import AccessAccept, StatusServer
from rich.console import Console

from sparecode.v1 import authentication_pb2
from sparecode_client import Admin, RadiusSettings
from tests.bench import paired
from tests.bench.estate import Estate
from tests.bench.http_load import HttpClients
from tests.bench.load import Clients, Load, Measurement, do
from tests.bench.page import write_report
from tests.bench.population import CODES_EACH, Population
from tests.bench.radius_load import RadiusClients
from tests.bench.refusals import BOUND_MS, SEED, Kind, agent_of, kinds, timed_ms
from tests.bench.report import Report, Target
from tests.http.door import trusting
from tests.radius.door import request
from tests.results import ROOT

CLIENTS = 64
SECONDS = 2.0
ROUNDS = 9
CALLS_PER_S = 1000
SHARES: Mapping[str, float] = {"RADIUS": 0.9, "HTTP": 0.6}
"""The least rate of a door, as a share of that of gRPC."""
REFUSALS = 300
"""Rounds through each door. Each has every kind of refusal once."""
STORM = 400
WORK_MAX = 1.3
"""The work of a request that comes three times, as a share of one that comes once."""
KNOWN_S = 20.0
"""Patience until all nodes know the new client. They should within a second."""
TRY_S = 0.2


def main() -> int:
    """Measure the doors; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.doors")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    arguments = parser.parse_args()
    report = Report(path=ROOT / "var" / "doors.json", command="make bench-doors")
    measure(report)
    report.finish()
    report.show(Console())
    if arguments.page:
        write_report("doors", report)
    return report.exit_code()


def measure(report: Report) -> None:
    """Start three nodes with all doors, and measure everything."""
    calls = int(SECONDS * CALLS_PER_S)
    spent = 3 * ROUNDS * calls + 4 * STORM
    users = spent // CODES_EACH * 4 // 3 + 25 * REFUSALS
    with tempfile.TemporaryDirectory(prefix="sparecode-bench-") as folder:
        estate = Estate(
            Path(folder) / "doors", Population(users=users, profile="testing")
        )
        size = len(estate.cluster.nodes)
        ports = free_ports(2 * size)
        radius_ports, http_ports = ports[:size], ports[size:]
        for node, radius_port, http_port in zip(
            estate.cluster.nodes, radius_ports, http_ports, strict=True
        ):
            ours = estate.cluster.certificates / node.node_id
            section = (
                f'\n[radius]\nlisten = ["{HOST}:{radius_port}"]\n'
                f'\n[http]\nlisten = "{HOST}:{http_port}"\n'
                f'certificate = "{ours}.pem"\nkey = "{ours}.key"\n'
            )
            node.config.write_text(node.config.read_text() + section)
        with estate:
            secret = register(estate)
            until_known(radius_ports, secret)
            doors = [
                by_radius(estate, radius_ports, secret),
                by_http(estate, http_ports),
            ]
            compare(estate, report, doors)
            for door in doors:
                storm(estate, report, door)
            refuse(estate, report, radius_ports[-1], http_ports[-1], secret)


def register(estate: Estate) -> str:
    """Register this machine as a RADIUS client, and return its secret."""
    with Admin(
        [node.admin_address for node in estate.cluster.nodes],
        ca=estate.cluster.members_ca,
        session=estate.bearer,
    ) as admin:
        new = admin.register_radius_client("nas", RadiusSettings(networks=(HOST,)))
        return new.secret


@dataclass(frozen=True, kw_only=True)
class Door:
    """A door besides gRPC, and how its clients load it."""

    name: str
    clients: type[Clients]
    addresses: tuple[str, ...]
    requests: Callable[[int], tuple[str, ...]]
    """Returns this many requests with unused codes, as hexadecimal digits."""
    ca: str = ""
    certificate: str = ""
    key: str = ""

    def load(self, count: int, seconds: float, *, storm: bool = False) -> Load:
        """Return a load of *count* new requests."""
        return Load(
            addresses=self.addresses,
            ca=self.ca,
            certificate=self.certificate,
            key=self.key,
            method=f"{self.name} Authenticate",
            requests=self.requests(count),
            clients=CLIENTS,
            seconds=seconds,
            storm=storm,
        )


def by_radius(estate: Estate, ports: list[int], secret: str) -> Door:
    """Return the RADIUS door."""
    return Door(
        name="RADIUS",
        clients=RadiusClients,
        addresses=tuple(f"{HOST}:{port}" for port in ports),
        requests=lambda count: packets(estate, secret, count),
    )


def by_http(estate: Estate, ports: list[int]) -> Door:
    """Return the HTTP door."""
    certificate = estate.cluster.certificates / AGENT
    return Door(
        name="HTTP",
        clients=HttpClients,
        addresses=tuple(f"{HOST}:{port}" for port in ports),
        requests=lambda count: posts(estate, count),
        ca=str(estate.cluster.members_ca),
        certificate=f"{certificate}.pem",
        key=f"{certificate}.key",
    )


def until_known(ports: list[int], secret: str) -> None:
    """Wait until every node answers the new client's Status-Server."""
    deadline = time.monotonic() + KNOWN_S
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((HOST, port))
            client.settimeout(TRY_S)
            while True:
                client.send(request(secret, code=StatusServer))
                with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                    client.recv(4096)
                    break
                if time.monotonic() > deadline:
                    raise TimeoutError(f"port {port} does not know the client")


def packets(estate: Estate, secret: str, count: int) -> tuple[str, ...]:
    """Return packets with unused codes, as hexadecimal digits."""
    sent = []
    for number, each in enumerate(estate.take("code", count)):
        asked = authentication_pb2.AuthenticateRequest.FromString(bytes.fromhex(each))
        packet = request(
            secret, asked.username, asked.passcode, identifier=number % 256
        )
        sent.append(packet.hex())
    return tuple(sent)


def posts(estate: Estate, count: int) -> tuple[str, ...]:
    """Return HTTP requests with unused codes, as hexadecimal digits."""
    sent = []
    for each in estate.take("code", count):
        asked = authentication_pb2.AuthenticateRequest.FromString(bytes.fromhex(each))
        body = json.dumps({"username": asked.username, "passcode": asked.passcode})
        head = (
            f"POST /v1/authenticate HTTP/1.1\r\nhost: {HOST}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"idempotency-key: {asked.request_id}\r\n\r\n"
        )
        sent.append((head + body).encode().hex())
    return tuple(sent)


def compare(estate: Estate, report: Report, doors: Sequence[Door]) -> None:
    """Measure gRPC and the doors in turn, and compare the rates of the same rounds."""
    calls = int(SECONDS * CALLS_PER_S)
    rates: dict[str, list[float]] = {"gRPC": [], **{door.name: [] for door in doors}}
    last: dict[str, Measurement] = {}
    for _ in range(ROUNDS):
        run = estate.authenticate(clients=CLIENTS, seconds=SECONDS, calls=calls)
        last["gRPC"] = run.measured
        for door in doors:
            last[door.name] = do(door.load(calls, SECONDS), door.clients)
            must_be_accepted(last[door.name])
        for name, measured in last.items():
            rates[name].append(measured.per_s)
    for name, measured in last.items():
        report.add_load(f"authenticate, codes, by {name}", measured, clients=CLIENTS)
    for name, each in rates.items():
        per_s = round(statistics.median(each))
        report.add("median of the rounds", **{f"{name}, calls a second": per_s})
    for name, share in SHARES.items():
        found = paired.ratio(rates[name], rates["gRPC"])
        report.targets.append(
            Target(
                name="(D)",
                words=f"{CLIENTS} clients, cheap hashing: rate of {name}, as a share of "
                "gRPC",
                value=found.median,
                target=share,
                at_least=True,
                interval=(found.low, found.high),
            )
        )


def storm(estate: Estate, report: Report, door: Door) -> None:
    """
    Send requests once, and others three times over two nodes, and compare the work.

    Hashes are counted, so a busy machine changes nothing. One entry of the log may have
    many calls, so entries tell nothing.
    """
    hashes = []
    for in_storm in (False, True):
        before = estate.hashes()
        measured = do(door.load(STORM, 60.0, storm=in_storm), door.clients)
        must_be_accepted(measured)
        hashes.append(estate.hashes() - before)
    report.targets.append(
        Target(
            name="(D)",
            words=f"{door.name}, each request three times over two nodes: hashes, as a "
            "share of those of once",
            value=hashes[1] / hashes[0],
            target=WORK_MAX,
            at_least=False,
        )
    )


def must_be_accepted(measured: Measurement) -> None:
    """Check that no right passcode was refused. Shed requests are none."""
    if measured.accepted != measured.answered:
        raise ValueError(f"a right passcode was refused: {measured}")


def refuse(
    estate: Estate, report: Report, port: int, http_port: int, secret: str
) -> None:
    """Send every kind of refusal through each door, and compare them in pairs (A6)."""
    client = Client(
        server=HOST,
        authport=port,
        secret=secret.encode(),
        dict=Dictionary(),
        timeout=10,
        retries=1,
    )

    def asks_radius(username: str, passcode: str) -> bool:
        packet = client.CreateAuthPacket()
        packet[1] = [username.encode()]
        packet[2] = [packet.PwCrypt(passcode)]
        packet.add_message_authenticator()
        return bool(client.SendPacket(packet).code == AccessAccept)

    http = httpx.Client(
        base_url=f"https://{HOST}:{http_port}",
        verify=trusting(estate.cluster.certificates, AGENT),
        timeout=10,
        trust_env=False,
    )

    def asks_http(username: str, passcode: str) -> bool:
        response = http.post(
            "/v1/authenticate", json={"username": username, "passcode": passcode}
        )
        return bool(response.json()["decision"] == "ACCEPTED")

    with http, agent_of(estate) as agent:

        def asks_grpc(username: str, passcode: str) -> bool:
            return agent.authenticate(username, passcode).accepted

        doors = {"gRPC": asks_grpc, "RADIUS": asks_radius, "HTTP": asks_http}
        took: dict[str, dict[str, list[float]]] = {door: {} for door in doors}
        for number in range(REFUSALS * len(doors)):
            door = [*doors][number % len(doors)]
            _round(kinds(estate, number), doors[door], took[door], number)
    for door, times in took.items():
        for name, values in times.items():
            p50_ms = round(statistics.median(values), 2)
            report.add(f"refused by {door}, alternating", kind=name, p50_ms=p50_ms)
        found = paired.spread(times)
        report.targets.append(
            Target(
                name="(A6)",
                words=f"refusals by {door}: the most that two kinds differ in a round",
                value=found.median,
                target=BOUND_MS,
                at_least=False,
                unit=" ms",
                interval=(found.low, found.high),
            )
        )


def _round(
    order: list[Kind],
    is_accepted: Callable[[str, str], bool],
    took: dict[str, list[float]],
    number: int,
) -> None:
    """Send each kind of refusal once, in random order."""
    for kind in order:
        if kind.before:
            is_accepted(kind.username, kind.passcode)
    for kind in random.Random(SEED + number).sample(order, len(order)):
        ms, accepted = timed_ms(
            lambda kind=kind: is_accepted(kind.username, kind.passcode)
        )
        if accepted:
            raise ValueError(f"{kind.name} was accepted")
        took.setdefault(kind.name, []).append(ms)


if __name__ == "__main__":
    sys.exit(main())

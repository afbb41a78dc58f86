# SPDX-License-Identifier: Apache-2.0
"""
Compare RADIUS and HTTP with gRPC, and the times of refusals (A6): `make bench-doors`.

Three nodes with cheap hashing; the doors take turns.
"""

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
from local_cluster.cluster import AGENT, HOST, free_ports
from pyrad.client import Client
from pyrad.dictionary import Dictionary
from pyrad.packet import AccessAccept
from rich.console import Console

from sparecode.v1 import authentication_pb2
from sparecode_client import Admin, RadiusSettings
from tests.bench import http_load, radius_load
from tests.bench.estate import Estate
from tests.bench.load import Load, Measurement
from tests.bench.population import CODES_EACH, Population
from tests.bench.refusals import BOUND_MS, SEED, Kind, agent_of, kinds, timed_ms
from tests.bench.report import Report, Target
from tests.http.door import trusting
from tests.radius.door import request
from tests.results import ROOT

CLIENTS = 64
SECONDS = 2.0
ROUNDS = 5
CALLS_PER_S = 1000
SHARES: Mapping[str, float] = {"RADIUS": 0.9, "HTTP": 0.6}
"""The least rate of a door, as a share of that of gRPC."""
REFUSALS = 200
KNOWN_S = 5.0
"""A node knows a new client within a second."""


def main() -> int:
    """Measure; return the exit code."""
    report = Report(path=ROOT / "var" / "doors.json", command="make bench-doors")
    calls = int(SECONDS * CALLS_PER_S)
    users = (3 * ROUNDS * calls) // CODES_EACH * 4 // 3 + 25 * REFUSALS
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
            time.sleep(KNOWN_S)
            compare(estate, report, radius_ports, http_ports, secret)
            refuse(estate, report, radius_ports[-1], http_ports[-1], secret)
    report.write()
    report.show(Console())
    return 0 if all(target.holds for target in report.targets) else 1


def register(estate: Estate) -> str:
    """Register this machine as a RADIUS client, and return its secret."""
    with Admin(
        [node.admin_address for node in estate.cluster.nodes],
        ca=estate.cluster.members_ca,
        session=estate.bearer,
    ) as admin:
        new = admin.register_radius_client("nas", RadiusSettings(networks=(HOST,)))
        return new.secret


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


def compare(
    estate: Estate,
    report: Report,
    radius_ports: list[int],
    http_ports: list[int],
    secret: str,
) -> None:
    """Measure the doors in turn, and compare the medians of their rates."""
    calls, certificates = int(SECONDS * CALLS_PER_S), estate.cluster.certificates
    rates: dict[str, list[float]] = {"gRPC": [], "RADIUS": [], "HTTP": []}
    middle: dict[str, Measurement] = {}
    for _ in range(ROUNDS):
        by_grpc = estate.authenticate(clients=CLIENTS, seconds=SECONDS, calls=calls)
        by_radius = radius_load.do(
            Load(
                addresses=tuple(f"{HOST}:{port}" for port in radius_ports),
                ca="",
                method="RADIUS Authenticate",
                requests=packets(estate, secret, calls),
                clients=CLIENTS,
                seconds=SECONDS,
            )
        )
        by_http = http_load.do(
            Load(
                addresses=tuple(f"{HOST}:{port}" for port in http_ports),
                ca=str(estate.cluster.members_ca),
                certificate=str(certificates / f"{AGENT}.pem"),
                key=str(certificates / f"{AGENT}.key"),
                method="HTTP Authenticate",
                requests=posts(estate, calls),
                clients=CLIENTS,
                seconds=SECONDS,
            )
        )
        for each in (by_radius, by_http):
            if each.accepted != each.answered:
                raise ValueError(f"a right passcode was refused: {each}")
        for name, measured in (
            ("gRPC", by_grpc.measured),
            ("RADIUS", by_radius),
            ("HTTP", by_http),
        ):
            rates[name].append(measured.per_s)
            middle[name] = measured
    for name, measured in middle.items():
        report.add_load(f"authenticate, codes, by {name}", measured, clients=CLIENTS)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, per_s in medians.items():
        report.add("median of the rounds", **{f"{name}, calls a second": round(per_s)})
    for name, share in SHARES.items():
        report.targets.append(
            Target(
                name="(D)",
                words=f"{CLIENTS} clients, cheap hashing: rate of {name}, as a share of "
                "gRPC",
                value=medians[name] / medians["gRPC"],
                target=share,
                at_least=True,
            )
        )


def refuse(
    estate: Estate, report: Report, port: int, http_port: int, secret: str
) -> None:
    """Send every kind of refusal through each door, and compare the medians (A6)."""
    client = Client(
        server=HOST,
        authport=port,
        secret=secret.encode(),
        dict=Dictionary(),
        timeout=10,
        retries=1,
    )

    def by_radius(username: str, passcode: str) -> bool:
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

    def by_http(username: str, passcode: str) -> bool:
        response = http.post(
            "/v1/authenticate", json={"username": username, "passcode": passcode}
        )
        return bool(response.json()["decision"] == "ACCEPTED")

    with http, agent_of(estate) as agent:

        def by_grpc(username: str, passcode: str) -> bool:
            return agent.authenticate(username, passcode).accepted

        doors = {"gRPC": by_grpc, "RADIUS": by_radius, "HTTP": by_http}
        took: dict[str, dict[str, list[float]]] = {door: {} for door in doors}
        for number in range(REFUSALS * len(doors)):
            door = [*doors][number % len(doors)]
            _round(kinds(estate, number), doors[door], took[door], number)
    for door, times in took.items():
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, median_ms in medians.items():
            report.add(
                f"refused by {door}, alternating", kind=name, p50_ms=round(median_ms, 2)
            )
        report.targets.append(
            Target(
                name="(A6)",
                words=f"refusals by {door}: slowest median minus fastest median",
                value=max(medians.values()) - min(medians.values()),
                target=BOUND_MS,
                at_least=False,
                unit=" ms",
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

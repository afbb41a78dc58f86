# SPDX-License-Identifier: Apache-2.0
"""
Compare RADIUS with gRPC, and the times of its refusals (A6): `make bench-radius`.

Three nodes with cheap hashing; both doors take turns.
"""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from local_cluster.cluster import HOST, free_ports
from pyrad.client import Client
from pyrad.dictionary import Dictionary
from pyrad.packet import AccessAccept
from rich.console import Console

from sparecode.v1 import authentication_pb2
from sparecode_client import Admin, RadiusSettings
from tests.bench import radius_load
from tests.bench.estate import Estate
from tests.bench.load import Load, Measurement
from tests.bench.population import CODES_EACH, Population
from tests.bench.refusals import BOUND_MS, SEED, Kind, agent_of, kinds, timed_ms
from tests.bench.report import Report, Target
from tests.radius.door import request
from tests.results import ROOT

CLIENTS = 64
SECONDS = 2.0
ROUNDS = 5
CALLS_PER_S = 1000
SHARE = 0.9
REFUSALS = 200
KNOWN_S = 5.0
"""A node knows a new client within a second."""


def main() -> int:
    """Measure; return the exit code."""
    report = Report(path=ROOT / "var" / "radius.json", command="make bench-radius")
    calls = int(SECONDS * CALLS_PER_S)
    users = (2 * ROUNDS * calls) // CODES_EACH * 4 // 3 + 17 * REFUSALS
    with tempfile.TemporaryDirectory(prefix="sparecode-bench-") as folder:
        estate = Estate(
            Path(folder) / "radius", Population(users=users, profile="testing")
        )
        ports = free_ports(len(estate.cluster.nodes))
        for node, port in zip(estate.cluster.nodes, ports, strict=True):
            section = f'\n[radius]\nlisten = ["{HOST}:{port}"]\n'
            node.config.write_text(node.config.read_text() + section)
        with estate:
            secret = register(estate)
            time.sleep(KNOWN_S)
            compare(estate, report, ports, secret)
            refuse(estate, report, ports[-1], secret)
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


def compare(estate: Estate, report: Report, ports: list[int], secret: str) -> None:
    """Measure both doors in turn, and compare the medians of their rates."""
    calls = int(SECONDS * CALLS_PER_S)
    rates: dict[str, list[float]] = {"gRPC": [], "RADIUS": []}
    middle: dict[str, Measurement] = {}
    for _ in range(ROUNDS):
        by_grpc = estate.authenticate(clients=CLIENTS, seconds=SECONDS, calls=calls)
        by_radius = radius_load.do(
            Load(
                addresses=tuple(f"{HOST}:{port}" for port in ports),
                ca="",
                method="RADIUS Authenticate",
                requests=packets(estate, secret, calls),
                clients=CLIENTS,
                seconds=SECONDS,
            )
        )
        if by_radius.accepted != by_radius.answered:
            raise ValueError(f"a right passcode was refused: {by_radius}")
        for name, measured in (("gRPC", by_grpc.measured), ("RADIUS", by_radius)):
            rates[name].append(measured.per_s)
            middle[name] = measured
    for name, measured in middle.items():
        report.add_load(f"authenticate, codes, by {name}", measured, clients=CLIENTS)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, per_s in medians.items():
        report.add("median of the rounds", **{f"{name}, calls a second": round(per_s)})
    report.targets.append(
        Target(
            name="(D)",
            words=f"{CLIENTS} clients, cheap hashing: rate of RADIUS, as a share of gRPC",
            value=medians["RADIUS"] / medians["gRPC"],
            target=SHARE,
            at_least=True,
        )
    )


def refuse(estate: Estate, report: Report, port: int, secret: str) -> None:
    """Send every kind of refusal through both doors, and compare the medians (A6)."""
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

    with agent_of(estate) as agent:

        def by_grpc(username: str, passcode: str) -> bool:
            return agent.authenticate(username, passcode).accepted

        doors = {"gRPC": by_grpc, "RADIUS": by_radius}
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

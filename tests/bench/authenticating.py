# SPDX-License-Identifier: Apache-2.0
"""Passcodes: one node and three, through whichever, with either hashing (a, b, d)."""

from pathlib import Path

from local_cluster.cluster import LocalNode

from tests.bench.estate import Estate, Run
from tests.bench.measuring import CLIENTS, MANY, Bench
from tests.bench.population import Population
from tests.bench.tracing import counting_syncs

EVALUATIONS = 2
"""Of Argon2id for each attempt (T4)."""


def production(bench: Bench, directory: Path, *, nodes: int, users: int) -> None:
    """Measure what the hashing of production leaves (a)."""
    population = Population(users=users, profile="production")
    name = "three nodes" if nodes == 3 else "one node"
    seconds = min(3.0, bench.seconds)
    with Estate(directory, population, nodes=nodes) as estate:
        runs = {
            clients: bench.thrice(
                f"authenticate, codes, hashing of production, {name}",
                lambda clients=clients: estate.authenticate(
                    clients=clients,
                    seconds=seconds,
                    calls=clients + int(seconds * (50 if clients == 1 else 80)),
                    patient=True,
                ),
                clients=clients,
            )
            for clients in (*CLIENTS, MANY)
        }
    if nodes == 3:
        ceiling = bench.limits.argon2id_per_s / EVALUATIONS
        bench.target(
            "(a)",
            "hashing of production, 64 clients: share of what all cores can hash",
            runs[64].measured.per_s / ceiling,
            0.8,
            at_least=True,
        )
        best = max(run.measured.per_s for run in runs.values())
        held_up(bench, runs[MANY], best, "hashing of production")


def held_up(bench: Bench, run: Run, best: float, words: str) -> None:
    """See that a crowd gets as much as a few do, and who is shed a quick answer (e)."""
    measured = run.measured
    shed = measured.codes.get("RESOURCE_EXHAUSTED", 0)
    who = f"{words}, {MANY} clients"
    bench.target(
        "(e)",
        f"{who}: share of the best throughput",
        measured.per_s / best,
        0.8,
        at_least=True,
    )
    bench.target(
        "(e)",
        f"{who}: p95 of the answer to whom is shed",
        measured.shed_p95_ms if shed else None,
        50,
        unit=" ms",
    )
    bench.target(
        "(e)",
        f"{who}: share of these with a retry hint",
        measured.shed_with_hint / shed if shed else None,
        1,
        at_least=True,
    )


def single(bench: Bench, estate: Estate) -> None:
    """Measure one node alone."""
    for clients in CLIENTS:
        bench.thrice(
            "authenticate, codes, one node",
            lambda clients=clients: bench.codes(estate, clients),
            clients=clients,
        )
    for clients in CLIENTS:
        bench.thrice(
            "authenticate, TOTP, one node",
            lambda clients=clients: bench.tokencodes(estate, clients),
            clients=clients,
        )


def three(bench: Bench, estate: Estate) -> float:
    """Measure three nodes (b); return the best throughput."""
    runs = {
        clients: bench.thrice(
            "authenticate, codes",
            lambda clients=clients: bench.codes(estate, clients),
            clients=clients,
        )
        for clients in CLIENTS
    }
    limits = bench.limits
    bench.target(
        "(b)",
        "cheap hashing, 64 clients: share of the echo",
        runs[64].measured.per_s / limits.echo[64].per_s,
        0.35,
        at_least=True,
    )
    floor = limits.echo[1].p50_ms + limits.sync_ms
    bench.target(
        "(b)", "one client's p50, in echo p50 + one sync", _p50(runs[1]) / floor, 4.0
    )
    for clients in CLIENTS:
        bench.thrice(
            "authenticate, TOTP",
            lambda clients=clients: bench.tokencodes(estate, clients),
            clients=clients,
        )
    return max(run.measured.per_s for run in runs.values())


def through(bench: Bench, estate: Estate) -> None:
    """Measure where all callers know one node only."""
    for name, node in (
        ("the primary", estate.primary()),
        ("a replica", estate.replica()),
    ):
        for clients in CLIENTS:
            bench.thrice(
                f"authenticate, codes, all through {name}",
                lambda node=node, clients=clients: bench.codes(estate, clients, [node]),
                clients=clients,
            )


def syncs(bench: Bench, estate: Estate) -> None:
    """Count the journal's syncs of each node (d)."""
    nodes: list[LocalNode] = estate.cluster.nodes
    with counting_syncs(nodes) as counts:
        run = bench.codes(estate, 8)
    entries = max(1, run.entries)
    bench.report.add("syncs of the journal", entries=entries, syncs_of_each_node=counts)
    bench.target(
        "(d)",
        "syncs of the journal for each batch and node",
        max(counts.values(), default=0) / entries,
        1.05,
    )


def growing(bench: Bench, estate: Estate) -> float:
    """Return the p50 of one client where so much is stored (c)."""
    run = bench.thrice(
        f"authenticate, codes, {estate.population.users} users",
        lambda: bench.codes(estate, 1),
        clients=1,
    )
    return _p50(run)


def _p50(run: Run) -> float:
    return run.measured.p50_ms

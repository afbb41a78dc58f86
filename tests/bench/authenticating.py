# SPDX-License-Identifier: Apache-2.0
"""Passcodes: one node and three, through whichever, with either hashing (a, b, d)."""

import statistics

from local_cluster.cluster import LocalNode

from tests.bench.estate import Estate, Run
from tests.bench.limits import argon2id_per_s
from tests.bench.measuring import CLIENTS, MANY, Bench
from tests.bench.tracing import counting_syncs

EVALUATIONS = 2
"""Of Argon2id for each attempt (T4)."""


def production(bench: Bench, estate: Estate) -> None:
    """
    Measure what the hashing of production leaves (a).

    Each node is in a session of its own, as services on one machine are. That Linux
    deals the cores out between them has long pieces of hashing done at once, so that
    more is hashed; and answers wait for their turn, also those to whom is shed.
    """
    before = _ceiling_per_s(estate)
    runs = _hashing(bench, estate, "in sessions of their own", (*CLIENTS, MANY))
    ceiling = (before + _ceiling_per_s(estate)) / 2
    bench.report.add(
        "attempts that all cores can hash, before and after three nodes did",
        attempts_per_s=round(ceiling, 1),
    )
    bench.target(
        "(a)",
        "hashing of production, 64 clients: share of what all cores can hash",
        runs[64].measured.per_s / ceiling,
        0.8,
        at_least=True,
    )
    best = max(run.measured.per_s for run in runs.values())
    held_up(bench, runs[MANY], best, "hashing of production")
    bench.report.add(
        f"who is shed, hashing of production, own sessions, {MANY} clients",
        p95_ms=round(runs[MANY].measured.shed_p95_ms, 1),
    )


def one_session(bench: Bench, estate: Estate) -> None:
    """
    Measure the same where a node's answers go before any node's hashing (e).

    Priorities hold between all threads, as they do on a machine of its own. What it
    costs to break hashing off for each answer is told too, as a share of (a).
    """
    estate.restart(own_sessions=False)
    before = _ceiling_per_s(estate)
    runs = _hashing(bench, estate, "in one session", (64, MANY))
    ceiling = (before + _ceiling_per_s(estate)) / 2
    bench.report.add(
        "hashing of production in one session: share of what all cores can hash",
        share=round(runs[64].measured.per_s / ceiling, 2),
    )
    best = max(run.measured.per_s for run in runs.values())
    held_up(bench, runs[MANY], best, "hashing of production, one session")
    quickly_told(bench, runs[MANY], "hashing of production, one session")


def alone(bench: Bench, estate: Estate) -> None:
    """Measure one node, which has all cores, with the hashing of production."""
    run = _hashing(bench, estate, "one node", (*CLIENTS, MANY))[MANY]
    quickly_told(bench, run, "hashing of production, one node")


def _ceiling_per_s(estate: Estate) -> float:
    """
    Return how many attempts all cores can hash in a second, with no node running.

    Anew, since what other machines on the same host do to its memory changes within
    minutes, by more than what is measured.
    """
    estate.stop()
    found = statistics.median(argon2id_per_s() for _ in range(5)) / EVALUATIONS
    estate.start()
    return found


def _hashing(
    bench: Bench, estate: Estate, where: str, crowds: tuple[int, ...]
) -> dict[int, Run]:
    def run(clients: int) -> Run:
        # Whoever begins in the same moment is shed together; that is the warm-up.
        seconds = min(10.0 if clients == MANY else 3.0, bench.seconds * 2)
        return estate.authenticate(
            clients=clients,
            seconds=seconds,
            calls=clients + int(seconds * 50),
            patient=True,
        )

    return {
        clients: bench.thrice(
            f"authenticate, codes, hashing of production, {where}",
            lambda clients=clients: run(clients),
            clients=clients,
        )
        for clients in crowds
    }


def held_up(bench: Bench, run: Run, best: float, words: str) -> None:
    """See that a crowd gets as much as a few do (e)."""
    bench.target(
        "(e)",
        f"{words}, {MANY} clients: share of the best throughput",
        run.measured.per_s / best,
        0.8,
        at_least=True,
    )


def quickly_told(bench: Bench, run: Run, words: str) -> None:
    """See that who is shed hears of it soon, and when to come again (e)."""
    measured = run.measured
    shed = measured.codes.get("RESOURCE_EXHAUSTED", 0)
    who = f"{words}, {MANY} clients"
    bench.report.add(
        f"who is shed while all begin at once, {who}",
        p95_ms=round(measured.shed_at_first_p95_ms, 1),
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
    if not (run.entries and counts and all(counts.values())):
        # Every member keeps every entry: that one never syncs was not seen right.
        raise RuntimeError(f"{run.entries} entries, and strace saw {counts} syncs")
    entries = run.entries
    bench.report.add("syncs of the journal", entries=entries, syncs_of_each_node=counts)
    bench.target(
        "(d)",
        "syncs of the journal for each batch and node",
        max(counts.values()) / entries,
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

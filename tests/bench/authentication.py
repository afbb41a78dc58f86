# SPDX-License-Identifier: Apache-2.0
"""Authentication: one node and three, through any node, with either hashing (a-e)."""

import contextlib
import functools
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local_cluster.cluster import LocalNode

from tests.bench.estate import Estate, Run
from tests.bench.harness import (
    CALLS_PER_S_MAX,
    CLIENTS,
    HASHED_PER_S,
    MANY,
    Bench,
    ratio,
)
from tests.bench.limits import (
    argon2id_per_s,
    bare_commit,
    call_echo,
    echo_server,
)
from tests.bench.load import Measurement
from tests.bench.probes import count_syncs

KINDS = {"code": "codes", "token": "TOTP"}
EVALUATIONS = 2
"""Argon2id evaluations per attempt (T4)."""


def production(bench: Bench, estate: Estate) -> None:
    """
    Measure three nodes with production hashing (a).

    Each node has its own session, like services on one machine. Linux divides the
    cores between sessions, so hashing runs in longer pieces and more is hashed. But
    answers wait for their turn, including those to shed calls (e).
    """
    runs, share = _share_of_all_cores(
        bench, estate, "separate sessions", (*CLIENTS, MANY)
    )
    bench.target(
        "(a)",
        "production hashing, 64 clients: share of what all cores can hash",
        share,
        0.75,
        at_least=True,
    )
    best = max(run.measured.per_s for run in runs.values())
    check_throughput(bench, runs[MANY], best, "production hashing")
    check_shedding(bench, runs[MANY], "production hashing")
    _hashing(bench, estate, "separate sessions", CLIENTS, kind="token")
    # A tokencode costs no other hashes than a code.
    for name, node in _one_of_each(estate):
        _hashing(bench, estate, f"all through {name}", (64,), via=[node])


def one_session(bench: Bench, estate: Estate) -> None:
    """
    Measure the same where answers have priority over the hashing of any node (e).

    Priorities hold between all threads, as on separate machines. The report also shows
    the throughput with these interruptions of hashing, as the share that (a) bounds.
    """
    estate.start_in_one_session()
    runs, share = _share_of_all_cores(bench, estate, "one session", (64, MANY))
    bench.report.add(
        "production hashing, one session: share of what all cores can hash",
        share=round(share, 2),
    )
    best = max(run.measured.per_s for run in runs.values())
    check_throughput(bench, runs[MANY], best, "production hashing, one session")
    check_shedding(bench, runs[MANY], "production hashing, one session")


def one_node_production(bench: Bench, estate: Estate) -> None:
    """Measure one node with production hashing, which has all cores."""
    run = _hashing(bench, estate, "one node", (*CLIENTS, MANY))[MANY]
    check_shedding(bench, run, "production hashing, one node")
    _hashing(bench, estate, "one node", CLIENTS, kind="token")


def _share_of_all_cores(
    bench: Bench, estate: Estate, where: str, crowds: tuple[int, ...]
) -> tuple[dict[int, Run], float]:
    """
    Return the runs of each crowd, and the share of the ceiling that 64 clients reach.

    The ceiling is measured before and after the runs. Other guests of the host change
    its memory speed within minutes, by more than the difference to be measured.
    """
    before = _ceiling_per_s(estate)
    # Starting nodes elects a primary: count elections only from here on.
    with bench.no_election(
        estate,
        f"elections, production hashing, {where}, up to {max(crowds)} clients",
    ):
        runs = _hashing(bench, estate, where, crowds)
    ceiling = (before + _ceiling_per_s(estate)) / 2
    bench.report.add(
        f"attempts that all cores can hash, before and after the three-node loads, {where}",
        attempts_per_s=round(ceiling, 1),
    )
    return runs, runs[64].measured.per_s / ceiling


def _ceiling_per_s(estate: Estate) -> float:
    """Return how many attempts all cores can hash per second while no node runs."""
    estate.stop()
    result = statistics.median(argon2id_per_s() for _ in range(5)) / EVALUATIONS
    estate.start()
    return result


def _hashing(
    bench: Bench,
    estate: Estate,
    where: str,
    crowds: tuple[int, ...],
    *,
    kind: str = "code",
    via: list[LocalNode] | None = None,
) -> dict[int, Run]:
    # Each token shows one usable tokencode at a time; codes are more plentiful.
    most_s = 1.5 if kind == "token" else 3.0

    def run(clients: int) -> Run:
        # Clients that start in one moment are shed together: that is the warm-up.
        seconds = min(10.0 if clients == MANY else most_s, bench.seconds * 2)
        return estate.authenticate(
            kind=kind,
            clients=clients,
            seconds=seconds,
            calls=clients + int(seconds * HASHED_PER_S),
            via=via,
            patient=True,
        )

    return {
        clients: bench.median_run(
            f"authenticate, {KINDS[kind]}, production hashing, {where}",
            lambda clients=clients: run(clients),
            clients=clients,
        )
        for clients in crowds
    }


def check_throughput(bench: Bench, run: Run, best: float, words: str) -> None:
    """Check that a crowd gets the throughput of a few clients (e)."""
    bench.target(
        "(e)",
        f"{words}, {MANY} clients: share of the best throughput",
        run.measured.per_s / best,
        0.8,
        at_least=True,
    )


def check_shedding(bench: Bench, run: Run, words: str, *, needed: bool = True) -> None:
    """
    Check that shed calls are answered soon, with a retry hint (e).

    If no call was shed, this shows nothing, and the targets are missed. Unless *needed* is
    False: with cheap hashing, nodes may be fast enough for all calls of a crowd.
    """
    measured = run.measured
    shed = measured.codes.get("RESOURCE_EXHAUSTED", 0)
    who = f"{words}, {MANY} clients"
    at_first_ms = measured.shed_at_first_p95_ms
    bench.report.add(
        f"shed calls when all clients start at once, {who}",
        p95_ms=round(at_first_ms, 1) if at_first_ms else "none",
    )
    bench.target(
        "(e)",
        f"{who}: p95 until a shed call is answered",
        measured.shed_p95_ms if shed else None,
        50,
        unit=" ms",
        needed=needed,
    )
    bench.target(
        "(e)",
        f"{who}: share of shed calls with a retry hint",
        measured.shed_with_hint / shed if shed else None,
        1,
        at_least=True,
        needed=needed,
    )


def one_node(bench: Bench, estate: Estate) -> None:
    """Measure one node with cheap hashing."""
    for clients in CLIENTS:
        bench.median_run(
            "authenticate, codes, one node",
            lambda clients=clients: bench.codes(estate, clients),
            clients=clients,
        )
    for clients in CLIENTS:
        bench.median_run(
            "authenticate, TOTP, one node",
            lambda clients=clients: bench.tokencodes(estate, clients),
            clients=clients,
        )


def three_nodes(bench: Bench, estate: Estate) -> float:
    """Measure three nodes with cheap hashing (b); return the best throughput."""
    runs = {
        clients: bench.median_run(
            "authenticate, codes",
            lambda clients=clients: bench.codes(estate, clients),
            clients=clients,
        )
        for clients in CLIENTS
    }
    bench.target(
        "(b)",
        "cheap hashing, 64 clients: processor time of three nodes for a call",
        sum(runs[64].cpu_ms.values()),
        1.6,
        unit=" ms",
    )
    with echo_server(estate.cluster) as address:
        echo, codes = _in_turn(
            bench, estate, {"echo, alternating with three nodes": address}, clients=64
        )
    share = ratio([each.per_s for each in codes], [each.per_s for each in echo])
    bench.report.add(
        "cheap hashing, 64 clients: share of the echo", share=round(share, 2)
    )
    one_client(bench, estate)
    for clients in CLIENTS:
        bench.median_run(
            "authenticate, TOTP",
            lambda clients=clients: bench.tokencodes(estate, clients),
            clients=clients,
        )
    return max(run.measured.per_s for run in runs.values())


def one_client(bench: Bench, estate: Estate) -> None:
    """Compare a lone client's p50 with what the machine's transport and disk take (b)."""
    cluster, by = estate.cluster, {"calls": False, "streams": True}
    with contextlib.ExitStack() as stack:
        loads = {
            "echo, alternating with three nodes": stack.enter_context(
                echo_server(cluster)
            )
        }
        for words, streams in by.items():
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(dir=cluster.directory))
            )
            name = f"messages and syncs of a commit over {words}, nothing computed"
            loads[name] = stack.enter_context(
                bare_commit(cluster, folder, streams=streams)
            )
        echo, *bare, codes = _in_turn(bench, estate, loads, clients=1)
    unit_ms = [each.p50_ms + bench.limits.sync_ms for each in echo]
    codes_ms = [each.p50_ms for each in codes]
    bench.target(
        "(b)",
        "one client: p50, as a multiple of echo p50 + one sync",
        ratio(codes_ms, unit_ms),
        6.0,
    )
    for words, each in zip(by, bare, strict=True):
        bare_ms = [one.p50_ms for one in each]
        bench.report.add(
            f"one client: p50 of the messages and syncs of a commit alone, over {words}",
            as_a_multiple_of_echo_and_sync=round(ratio(bare_ms, unit_ms), 2),
            share_of_an_authentication=round(ratio(bare_ms, codes_ms), 2),
        )


def _in_turn(
    bench: Bench, estate: Estate, echoes: Mapping[str, str], *, clients: int
) -> list[list[Measurement]]:
    """
    Return the measurements of each echo, and of three nodes.

    *echoes*: the name of the load, and the address that serves it.
    """
    seconds = min(3.0, bench.seconds)
    seconds /= max(1, len(echoes) - 1)  # As long with several of them as with two.

    def echo(address: str) -> Run:
        measured = call_echo(estate.cluster, address, clients, seconds)
        return Run(measured=measured, cpu_ms={}, entries=0)

    loads: dict[str, Callable[[], Run]] = {
        name: functools.partial(echo, address) for name, address in echoes.items()
    }
    loads["authenticate, codes, alternating with the echo"] = functools.partial(
        bench.codes, estate, clients
    )
    return bench.alternate(loads, clients=clients)


def through_one_node(bench: Bench, estate: Estate) -> None:
    """Measure with all clients on one node."""
    for name, node in _one_of_each(estate):
        for clients in (1, 64):
            bench.median_run(
                f"authenticate, codes, all through {name}",
                functools.partial(bench.codes, estate, clients, [node]),
                clients=clients,
            )


def _one_of_each(estate: Estate) -> tuple[tuple[str, LocalNode], ...]:
    return ("the primary", estate.primary()), ("a replica", estate.replica())


def syncs(bench: Bench, estate: Estate) -> None:
    """Count the syncs of each node's journal (d)."""
    nodes: list[LocalNode] = estate.cluster.nodes
    with count_syncs(nodes) as counts:
        run = bench.codes(estate, 8)
    journal = counts.journal
    if not (run.entries and journal and all(journal.values())):
        # Every member syncs every entry, so a count of 0 means that strace failed.
        raise RuntimeError(f"{run.entries} entries, and strace saw {journal} syncs")
    entries = run.entries
    bench.report.add(
        "syncs of each node",
        entries=entries,
        of_the_journal=journal,
        of_all_other_files=counts.others,
    )
    bench.target(
        "(d)",
        "journal syncs per batch and node",
        max(journal.values()) / entries,
        1.05,
    )


def growth(bench: Bench, estates: Sequence[Estate]) -> None:
    """Check that a client waits no longer on the largest estate than on the smallest (c)."""
    seconds = min(2.0, bench.seconds)
    calls = int(seconds * CALLS_PER_S_MAX[1])
    in_least, in_most = bench.alternate(
        {
            f"authenticate, codes, {estate.population.users} users": lambda estate=estate: (
                estate.authenticate(clients=1, seconds=seconds, calls=calls)
            )
            for estate in estates
        },
        clients=1,
    )
    least, most = (estate.population.users for estate in estates)
    bench.target(
        "(c)",
        f"p50 at {most} users, as a multiple of p50 at {least} users",
        ratio([each.p50_ms for each in in_most], [each.p50_ms for each in in_least]),
        1.2,
    )
    bench.alternate(
        {
            f"authenticate, TOTP, {estate.population.users} users": lambda estate=estate: (
                estate.authenticate(kind="token", clients=1, seconds=seconds, calls=100)
            )
            for estate in estates
        },
        clients=1,
    )

# SPDX-License-Identifier: Apache-2.0
"""The prober's gaps count while a quorum exists, and its codes must be accepted."""

import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from local_cluster.cluster import free_ports

from tests.faults.prober import NO_CODE
from tests.faults.probes import Call, Probes, failures, judge
from tests.replication.silent_proxy import Death

SECOND_NS = 1_000_000_000


def calls(*seconds: float, took_s: float = 0.5) -> list[Call]:
    """Return accepted calls that were answered at these times."""
    return [
        Call(int((s - took_s) * SECOND_NS), int(s * SECOND_NS), "accepted")
        for s in seconds
    ]


def judged(some: list[Call], *no_quorum: tuple[int, int]) -> Probes:
    """Judge calls of a minute that begins at 10 s."""
    spans = [(begin * SECOND_NS, end * SECOND_NS) for begin, end in no_quorum]
    return judge(some, 10 * SECOND_NS, 70 * SECOND_NS, spans)


@pytest.mark.parametrize(
    ("no_quorum", "gap_s"),
    [
        ([], 30.0),
        ([(15, 40)], 10.0),  # From 40 s to the answer at 50 s.
        ([(22, 25), (30, 45)], 5.0),
        ([(10, 70)], 0.0),
        ([(0, 45), (50, 80)], 5.0),
    ],
    ids=["always", "from before", "twice", "never", "beyond both ends"],
)
def test_a_gap_does_not_reach_into_a_time_without_a_quorum(
    no_quorum: list[tuple[int, int]], gap_s: float
) -> None:
    some = calls(*range(11, 21), *range(50, 71))
    assert judged(some, *no_quorum).gap_s == pytest.approx(gap_s)


def test_errors_and_late_answers_fill_no_gap() -> None:
    late = Call(12 * SECOND_NS, 22 * SECOND_NS, "NO_QUORUM")
    probes = judged([*calls(*range(11, 21), *range(30, 71)), late])
    assert probes.gap_s == pytest.approx(10)
    assert (probes.failed, probes.slowest_s) == (1, 0.5)
    assert failures(probes, 60) == [
        "the prober got no answer for 10.0 s while a quorum existed",
        "the prober opened only 52 calls",
    ]


def test_a_prober_without_codes_proves_too_little() -> None:
    """It is not told from a cluster that does not answer."""
    none = [Call(n * SECOND_NS, n * SECOND_NS, NO_CODE) for n in range(20, 30)]
    probes = judged([*calls(*range(11, 21), *range(30, 71)), *none])
    assert (probes.calls, probes.failed, probes.others) == (51, 0, ())
    assert "the prober opened only 51 calls" in failures(probes, 60)


def test_a_valid_code_that_is_not_accepted_is_a_failure() -> None:
    good = judged(calls(*(10.5 + n / 10 for n in range(595))))
    assert not failures(good, 60)
    refused = replace(good, others=("refused", "refused"))
    assert failures(refused, 60) == [
        "2 valid codes of the prober were not accepted: refused"
    ]


def test_the_proxies_before_members_let_connections_die() -> None:
    """The program counts connections, and bytes that did not arrive."""
    listen, target = (f"127.0.0.1:{port}" for port in free_ports(2))
    host, _, port = target.rpartition(":")
    with socket.create_server((host, int(port))) as server:
        proxy = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.link_proxies", listen, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert proxy.stdin is not None
        assert proxy.stdout is not None

        def ask(order: str) -> int:
            assert proxy.stdin is not None
            assert proxy.stdout is not None
            proxy.stdin.write(order + "\n")
            proxy.stdin.flush()
            return int(proxy.stdout.readline())

        try:
            assert ask("") == 0
            host, _, port = listen.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=20) as caller:
                called, _ = server.accept()
                with called:
                    called.settimeout(20)
                    caller.sendall(b"arrives")
                    assert called.recv(7) == b"arrives"
                    assert ask("") == 1
                    assert ask(Death.SWALLOWED.name) == 1
                    assert ask("") == 0
                    caller.sendall(b"vanishes")
                    while not (swallowed := ask("swallowed")):
                        pass
                    assert swallowed == len(b"vanishes")
        finally:
            proxy.stdin.close()
            proxy.wait(timeout=20)
            proxy.stdout.close()

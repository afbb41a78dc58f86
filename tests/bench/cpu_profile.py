# SPDX-License-Identifier: Apache-2.0
"""
Where the processor time of a call goes: `make bench-profile`.

Three nodes with cheap hashing, and 64 clients. The kernel tells the processor time of each
thread, how long it was ready and waited for a core, and its context switches, exactly.
Each node counts what its garbage collector takes. py-spy tells what the threads that run
Python do, by samples. It slows them down, so it runs beside another load of the same
kind, and only the shares are taken from that. It needs root, or the same user and ptrace
(ptrace(2)).
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from local_cluster.cluster import LocalNode

from tests.bench.estate import Estate, Run
from tests.bench.harness import CALLS_PER_S
from tests.bench.load import WARM_UP
from tests.bench.node_numbers.sitecustomize import COLLECTOR
from tests.bench.numbers import NodeNumbers, counted
from tests.bench.population import CODES_EACH, Population

SAMPLES_PER_S = 100
WARM_UP_S = 2.0
BEFORE_S = 1.0
"""Until py-spy has read the libraries of a node."""

PARTS = (
    ("JSON", ("/json/",)),
    ("hashing, and its queue", ("services/secrets/kdf", "services/load/fair_queue")),
    ("commands to bytes and back", ("replication/codec",)),
    ("journal and its sync", ("replication/log/",)),
    (
        "links between nodes, and forwarding",
        ("replication/links/", "replication/calls/"),
    ),
    (
        "Raft, and the queue of proposals",
        ("replication/raft/", "replication/replica/", "/pysyncobj/"),
    ),
    ("stamping", ("services/state/stamping",)),
    (
        "applying: rules and SQLite",
        ("sparecode_node/statemachine/", "services/state/"),
    ),
    ("reading the state", ("sparecode_node/queries/",)),
    ("use case of the call", ("sparecode_node/services/", "sparecode_node/domain/")),
    ("metrics, logs, traces", ("sparecode_node/daemon/", "/logging/")),
    ("the listener's checks of a call", ("sparecode_node/rpc/",)),
    ("the rest of replication", ("sparecode_node/replication/",)),
    ("gRPC's Python part, and its poller", ("/grpc/",)),
)
"""The parts of a node, each with pieces of the paths of its files; the first counts."""
LOOP = "event loop, TLS and gRPC below Python"
"""What has no file of ours: uvloop runs it, or the libraries below Python."""
NATIVE = "gRPC's own threads"
UNNAMED = re.compile(r"Thread-\d+ \((.+)\)")
"""Python's name of a thread that has none: its number, and the function that it runs."""


@dataclass(frozen=True, kw_only=True)
class Thread:
    """What the kernel tells of a thread."""

    name: str
    cpu_s: float = 0.0
    waited_s: float = 0.0
    """Ready to run, but without a core (`run_delay`, sched-stats in Linux's documents)."""
    turns: int = 0
    """Times that it got a core."""
    switches: int = 0
    """Voluntary: it waited for another thread, a message or the disk."""
    preempted: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-profile")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    arguments = parser.parse_args()
    spy = py_spy()
    loads = 2 * arguments.seconds + BEFORE_S + WARM_UP_S
    calls = 3 * arguments.clients + int(loads * CALLS_PER_S)
    with (
        tempfile.TemporaryDirectory(prefix="sparecode-bench-") as name,
        Estate(
            Path(name) / "three",
            Population(users=calls // CODES_EACH * 4 // 3 + 64, profile="testing"),
        ) as estate,
        counted(estate.cluster.nodes, COLLECTOR) as numbers,
    ):
        estate.stop()
        estate.start()
        _load(estate, arguments.clients, WARM_UP_S)
        primary = estate.primary().node_id
        before = _threads(estate, spy)
        numbers.clear()
        run = _load(estate, arguments.clients, arguments.seconds)
        garbage = garbage_of(numbers, estate)
        after = _threads(estate, spy)
        sampled, samples = _sampled(estate, spy, arguments.clients, arguments.seconds)
    calls = calls_of(run)
    sys.stdout.write(
        f"{arguments.clients} clients: {run.measured.per_s:.0f} calls a second, "
        f"{calls / max(1, run.entries):.1f} calls in an entry of the log "
        f"({sampled.measured.per_s:.0f} a second while py-spy samples)\n\n"
    )
    spent = {
        node: {
            each: since(before[node].get(each), thread)
            for each, thread in threads.items()
        }
        for node, threads in after.items()
    }
    sys.stdout.write("\n".join(thread_table(spent, primary, calls)) + "\n\n")
    sys.stdout.write("\n".join(part_table(spent, samples, calls)) + "\n\n")
    sys.stdout.write("\n".join(garbage_table(garbage, spent, primary, calls)) + "\n")
    return 0


def calls_of(run: Run) -> int:
    """Return how many calls a load has made, its warm-up included."""
    return round(sum(run.measured.codes.values()) / (1 - WARM_UP))


def _threads(estate: Estate, spy: str) -> dict[str, dict[str, Thread]]:
    return {node.node_id: threads_of(node, spy) for node in estate.cluster.nodes}


Garbage = Mapping[str, Mapping[str, float]]
"""Node -> what it has counted about its garbage collector."""


def garbage_of(numbers: NodeNumbers, estate: Estate) -> Garbage:
    """Return what the nodes have counted. Raises `RuntimeError` if one has not."""
    found = {each.node_id: numbers.of(each.node_id) for each in estate.cluster.nodes}
    for node, counts in found.items():
        if not counts["collections"]:
            raise RuntimeError(f"{node} has not counted its garbage collector")
    return found


def py_spy() -> str:
    """Return the path of py-spy."""
    beside = Path(sysconfig.get_path("scripts")) / "py-spy"
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise SystemExit("py-spy is not installed: run `make` again")
    return found


def _load(estate: Estate, clients: int, seconds: float) -> Run:
    return estate.authenticate(
        clients=clients,
        seconds=seconds,
        calls=clients + int(seconds * CALLS_PER_S),
        patient=True,
    )


def _sampled(
    estate: Estate, spy: str, clients: int, seconds: float
) -> tuple[Run, dict[str, dict[str, Counter[str]]]]:
    """Run a load; return it, and for each node and thread the samples of each part."""
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        spies = []
        for node in estate.cluster.nodes:
            command = [
                *(spy, "record", "--threads", "--full-filenames", "--nonblocking"),
                *("--format", "raw", "--rate", str(SAMPLES_PER_S)),
                *("--duration", str(round(BEFORE_S + seconds))),
                *("--output", str(folder / node.node_id), "--pid", str(node.pid)),
            ]
            spies.append(
                subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
                )
            )
        time.sleep(BEFORE_S)
        run = _load(estate, clients, seconds)
        for process in spies:
            _, complaints = process.communicate(timeout=60)
            if process.returncode:
                raise SystemExit(f"py-spy failed: {complaints.decode()[-500:]}")
        return run, {
            node.node_id: samples_in((folder / node.node_id).read_text())
            for node in estate.cluster.nodes
        }


def samples_in(raw: str) -> dict[str, Counter[str]]:
    """Return the samples of each part, by thread number, from py-spy's raw format."""
    found: dict[str, Counter[str]] = {}
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        number = thread.removeprefix("thread (").partition(")")[0]
        found.setdefault(number, Counter())[part_of(frames)] += int(count)
    return found


def part_of(frames: Iterable[str]) -> str:
    """Return the part of a node that the innermost frame of ours belongs to."""
    for frame in reversed(tuple(frames)):
        for part, pieces in PARTS:
            if any(piece in frame for piece in pieces):
                return part
    return LOOP


def kind_of(name: str) -> str:
    """Return the kind of a thread: threads of a pool are one, and those of one function."""
    function = UNNAMED.fullmatch(name.strip())
    return (function[1] if function else name).strip().rstrip("0123456789_- ")


def threads_of(node: LocalNode, spy: str) -> dict[str, Thread]:
    """Return the threads of a node by their number."""
    dumped = subprocess.run(
        (spy, "dump", "--nonblocking", "--json", "--pid", str(node.pid)),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {
        str(each["os_thread_id"]): kind_of(each["thread_name"])
        for each in json.loads(dumped)
    }
    found = {}
    for folder in Path(f"/proc/{node.pid}/task").iterdir():
        try:
            ran_ns, waited_ns, turns = map(
                int, (folder / "schedstat").read_text().split()
            )
            status = (folder / "status").read_text()
        except FileNotFoundError:  # It has ended.
            continue
        values = dict(line.split(":", 1) for line in status.splitlines())
        found[folder.name] = Thread(
            name=names.get(folder.name, NATIVE),
            cpu_s=ran_ns / 1e9,
            waited_s=waited_ns / 1e9,
            turns=turns,
            switches=int(values["voluntary_ctxt_switches"]),
            preempted=int(values["nonvoluntary_ctxt_switches"]),
        )
    return found


def since(before: Thread | None, after: Thread) -> Thread:
    """Return what a thread has done between two looks."""
    earlier = before or Thread(name=after.name)
    return Thread(
        name=after.name,
        cpu_s=after.cpu_s - earlier.cpu_s,
        waited_s=after.waited_s - earlier.waited_s,
        turns=after.turns - earlier.turns,
        switches=after.switches - earlier.switches,
        preempted=after.preempted - earlier.preempted,
    )


Spent = Mapping[str, Mapping[str, Thread]]
"""Node -> thread -> what it has done."""


def thread_table(spent: Spent, primary: str, calls: int) -> Iterable[str]:
    """Yield the lines of the table of threads."""
    yield (
        "| threads | primary, us of a call | replicas together, us of a call "
        "| wait for a core: primary | replicas together | of one turn, us "
        "| switches of all nodes, of a call | preempted |"
    )
    yield "| --- " + "| ---: " * 7 + "|"
    kinds: dict[str, list[float]] = {}
    for node, threads in spent.items():
        for each in threads.values():
            sums = kinds.setdefault(each.name, [0.0] * 7)
            replica = node != primary
            sums[replica] += each.cpu_s * 1e6 / calls
            sums[2 + replica] += each.waited_s * 1e6 / calls
            for at, count in (4, each.turns), (5, each.switches), (6, each.preempted):
                sums[at] += count / calls
    total = [sum(column) for column in zip(*kinds.values(), strict=True)]
    ranked = sorted(kinds.items(), key=lambda each: -sum(each[1][:2]))
    for name, sums in (*ranked, ("all", total)):
        if sum(sums[:2]) >= 1:
            of_one = (sums[2] + sums[3]) / sums[4] if sums[4] else 0.0
            cells = [f"{each:.0f}" for each in (*sums[:4], of_one)]
            cells += [f"{each:.2f}" for each in sums[5:]]
            yield f"| {name} | {' | '.join(cells)} |"


def garbage_table(
    garbage: Garbage, spent: Spent, primary: str, calls: int
) -> Iterable[str]:
    """Yield the lines of the table of the garbage collector, whose time is in all parts."""
    yield (
        "| garbage collector, in the times above | us of a call | share of the node "
        "| runs of 1,000 calls | full ones | longest, ms |"
    )
    yield "| --- " + "| ---: " * 5 + "|"
    for node, counts in sorted(garbage.items(), key=lambda each: each[0] != primary):
        took_s = counts["collecting_s"]
        cpu_s = sum(each.cpu_s for each in spent[node].values())
        yield (
            f"| {'primary' if node == primary else 'replica'} "
            f"| {took_s * 1e6 / calls:.1f} | {took_s / cpu_s:.1%} "
            f"| {counts['collections'] * 1000 / calls:.1f} "
            f"| {counts['full_collections']:.0f} "
            f"| {counts['longest_collection_s'] * 1000:.1f} |"
        )


def part_table(
    spent: Spent, samples: Mapping[str, Mapping[str, Counter[str]]], calls: int
) -> Iterable[str]:
    """Yield the lines of the table of parts: each thread's time, split by its samples."""
    yield "| part | all nodes, us of a call |"
    yield "| --- | ---: |"
    parts: Counter[str] = Counter()
    for node, threads in spent.items():
        cpu_us: Counter[str] = Counter()
        seen: dict[str, Counter[str]] = {}
        for number, each in threads.items():
            cpu_us[each.name] += each.cpu_s * 1e6 / calls  # type: ignore[assignment]
            seen.setdefault(each.name, Counter()).update(samples[node].get(number, {}))
        for name, cpu in cpu_us.items():
            shares = seen[name] or {_without_samples(name): 1}
            for part, count in shares.items():
                parts[part] += cpu * count / sum(shares.values())  # type: ignore[assignment]
    for part, cpu in parts.most_common():
        if cpu >= 1:
            yield f"| {part} | {cpu:.0f} |"
    yield f"| all | {sum(parts.values()):.0f} |"


def _without_samples(name: str) -> str:
    return NATIVE if name == NATIVE else LOOP


if __name__ == "__main__":
    sys.exit(main())

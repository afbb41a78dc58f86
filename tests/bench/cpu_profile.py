# SPDX-License-Identifier: Apache-2.0
"""
Where the processor time of a call goes: `make bench-profile`.

Three nodes with cheap hashing, and 64 clients. The kernel tells the processor time and
the context switches of each thread, exactly. py-spy tells what the threads that run
Python do, by samples, and slows them down by some percent. It needs root, or the same
user and ptrace (ptrace(2)).
"""

import argparse
import json
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
from tests.bench.population import CODES_EACH, Population

SAMPLES_PER_S = 100
WARM_UP_S = 2.0
BEFORE_S = 1.0
"""Until py-spy has read the libraries of a node."""

PARTS = (
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


@dataclass(frozen=True, kw_only=True)
class Thread:
    """What the kernel tells of a thread."""

    name: str
    cpu_s: float = 0.0
    switches: int = 0
    """Voluntary: it waited for another thread, a message or the disk."""
    preempted: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-profile")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    arguments = parser.parse_args()
    spy = py_spy()
    calls = int((arguments.seconds + BEFORE_S + WARM_UP_S) * CALLS_PER_S)
    with (
        tempfile.TemporaryDirectory(prefix="sparecode-bench-") as name,
        Estate(
            Path(name) / "three",
            Population(users=calls // CODES_EACH * 4 // 3 + 64, profile="testing"),
        ) as estate,
    ):
        _load(estate, arguments.clients, WARM_UP_S)
        primary = estate.primary().node_id
        before = {node.node_id: threads_of(node, spy) for node in estate.cluster.nodes}
        run, samples = _sampled(estate, spy, arguments.clients, arguments.seconds)
        after = {node.node_id: threads_of(node, spy) for node in estate.cluster.nodes}
    calls = round(sum(run.measured.codes.values()) / (1 - WARM_UP))
    sys.stdout.write(
        f"{arguments.clients} clients: {run.measured.per_s:.0f} calls a second, "
        f"{calls / max(1, run.entries):.1f} calls in an entry of the log\n\n"
    )
    spent = {
        node: {
            each: since(before[node].get(each), thread)
            for each, thread in threads.items()
        }
        for node, threads in after.items()
    }
    sys.stdout.write("\n".join(thread_table(spent, primary, calls)) + "\n\n")
    sys.stdout.write("\n".join(part_table(spent, samples, calls)) + "\n")
    return 0


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
    """Return the kind of a thread: threads of a pool are one."""
    return name.strip().rstrip("0123456789").rstrip("_- ")


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
            cpu_ns = int((folder / "schedstat").read_text().split()[0])
            status = (folder / "status").read_text()
        except FileNotFoundError:  # It has ended.
            continue
        values = dict(line.split(":", 1) for line in status.splitlines())
        found[folder.name] = Thread(
            name=names.get(folder.name, NATIVE),
            cpu_s=cpu_ns / 1e9,
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
        switches=after.switches - earlier.switches,
        preempted=after.preempted - earlier.preempted,
    )


Spent = Mapping[str, Mapping[str, Thread]]
"""Node -> thread -> what it has done."""


def thread_table(spent: Spent, primary: str, calls: int) -> Iterable[str]:
    """Yield the lines of the table of threads."""
    yield (
        "| threads | primary, us of a call | replicas together, us of a call "
        "| switches of all nodes, of a call | preempted |"
    )
    yield "| --- | ---: | ---: | ---: | ---: |"
    kinds: dict[str, list[float]] = {}
    for node, threads in spent.items():
        for each in threads.values():
            sums = kinds.setdefault(each.name, [0.0, 0.0, 0.0, 0.0])
            sums[0 if node == primary else 1] += each.cpu_s * 1e6 / calls
            sums[2] += each.switches / calls
            sums[3] += each.preempted / calls
    total = [sum(column) for column in zip(*kinds.values(), strict=True)]
    ranked = sorted(kinds.items(), key=lambda each: -sum(each[1][:2]))
    for name, sums in (*ranked, ("all", total)):
        if sum(sums[:2]) >= 1:
            yield (
                f"| {name} | {sums[0]:.0f} | {sums[1]:.0f} "
                f"| {sums[2]:.2f} | {sums[3]:.2f} |"
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

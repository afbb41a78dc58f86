# SPDX-License-Identifier: Apache-2.0
"""
Measure how long a move between two clusters pauses its users: `make bench-move`.

An operator moves slots by the commands of docs/clusters.md, in several rounds, while users
of these slots sign in (`moving_users`). The pause is what the users see: from the last
attempt that the source accepts to the first one that the target does.
"""

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_cluster.cluster import ADMINISTRATOR, AGENT
from rich.console import Console

from sparecode.v1 import authentication_pb2
from sparecode_client import Admin, slot_of
from sparecode_client.clusters.slots import SLOTS
from tests.bench.bulk import populate_by_rows
from tests.bench.estate import Estate
from tests.bench.harness import Bench
from tests.bench.joining import EstateSite, folder_of
from tests.bench.moving_users import MovingUsers, SignIn, pause_s
from tests.bench.page import targets_of, write_part
from tests.bench.population import CODES_EACH, Population
from tests.bench.report import Report
from tests.results import ROOT, row

MOVED = 2000
ROUNDS = 3
MOVES_LEVEL = 2
LEVEL_S = 120.0
AROUND_S = 2.0
"""How long users sign in before a move and after it."""
STEPS = ("freeze", "export", "load", "activate")
"""The commands of a pause, in their order."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """What a move took, in seconds."""

    users: int
    codes: int
    """The live codes of these users."""
    pieces: int
    """Of the export. Each is an entry of the target's log."""
    pause_s: float
    """From the last attempt that the source accepted to the first one in the target."""
    steps: dict[str, float]
    """Step -> from the start of its command to its end."""
    end_s: float
    """The command that lets the source answer that the slots have moved."""
    sign_ins: Sequence[SignIn]
    activated_at: float
    """When the command that activates the move had ended."""

    @property
    def refused(self) -> int:
        """The attempts that no cluster decided."""
        return sum(not each.cluster for each in self.sign_ins)

    @property
    def refused_later(self) -> int:
        """Those of them that began after the move was activated."""
        return sum(
            not each.cluster and each.began > self.activated_at
            for each in self.sign_ins
        )


class Operator:
    """Moves slots by commands, with the files of a move in one folder."""

    def __init__(self, source: Estate, target: Estate, folder: Path) -> None:
        self._source, self._target = EstateSite(source), EstateSite(target)
        self._folder = folder

    def sign_in(self) -> None:
        """Sign in at both clusters: each step needs a recent sign-in."""
        for site in (self._source, self._target):
            done = site.sign_in()
            if done.returncode:
                raise RuntimeError(done.stderr)

    def export(self, step: str, *files: str) -> str:
        """Run a command in the source."""
        return self._run(self._source, "export-users", step, *files)

    def load(self, step: str, *files: str) -> str:
        """Run a command in the target."""
        return self._run(self._target, "import-users", step, *files)

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return str(self._folder / name)

    def _run(self, site: EstateSite, group: str, *words: str) -> str:
        done = site.admin("cluster", group, *words)
        if done.returncode:
            raise RuntimeError(f"{group} {words[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def prepare(self, slots: range) -> str:
        """Prepare a move of slots, and return its id."""
        self.export("key", self.path("key"))
        words = self.load(
            "prepare",
            self.path("key"),
            self.path("ticket"),
            f"--slots={slots.start}-{slots.stop - 1}",
            "--same-administrators",
            "--output=json",
        )
        return str(json.loads(words)["move_id"])

    def arrived(self, move_id: str) -> tuple[int, int]:
        """Return the users that a move has brought to the target, and in how many pieces."""
        done = self._target.admin("cluster", "moves", "--output=json")
        moves = json.loads(done.stdout)["moves"]
        found = next(each for each in moves if each["move_id"] == move_id)
        return int(found["users"]), int(found["pieces"])


def measure(
    bench: Bench, folder: Path, *, moved: int, rounds: int = ROUNDS, nodes: int = 3
) -> list[Move]:
    """
    Move *moved* users in each round, roughly, between two clusters of *nodes* nodes.

    As many users stay in the source as move in all.
    """
    users = 2 * rounds * moved
    with bench.part("Build"):
        source = Estate(
            folder / "source",
            Population(users=users, profile="testing"),
            nodes=nodes,
            build=populate_by_rows,
        )
        target = Estate(
            folder / "target",
            Population(users=0, profile="testing"),
            nodes=nodes,
            build=lambda _cluster, _population: None,
        )
    moves: list[Move] = []
    with bench.part("Moves"), source, target:
        open_target(target)
        size = SLOTS // 2 // rounds
        by_slot = requests_by_slot(source)
        with (
            bench.no_election(source, "elections in the source", name="(move)"),
            bench.no_election(target, "elections in the target", name="(move)"),
        ):
            for number in range(rounds):
                slots = range(number * size, (number + 1) * size)
                place = folder / f"move-{number}"
                place.mkdir()
                moves.append(
                    move(
                        source, target, Operator(source, target, place), slots, by_slot
                    )
                )
        report(bench, moves)
    return moves


def open_target(estate: Estate) -> None:
    """Let a new cluster take users and serve the agent. Raises `TimeoutError`."""
    with Admin(
        [node.admin_address for node in estate.cluster.nodes],
        ca=estate.cluster.members_ca,
    ) as admin:
        admin.login(ADMINISTRATOR, estate.cluster.password)
        admin.register_agent(AGENT, f"sparecode://agent/{AGENT}")
    deadline = time.monotonic() + LEVEL_S
    while estate.status().feature_level < MOVES_LEVEL:
        if time.monotonic() > deadline:
            raise TimeoutError("the target stays at a lower feature level")
        time.sleep(0.2)


def requests_by_slot(estate: Estate) -> dict[int, list[str]]:
    """Return a request for each code of an estate, by the slot of its user."""
    by_slot: dict[int, list[str]] = {}
    for request in estate.take("code", estate.population.codes):
        fields = authentication_pb2.AuthenticateRequest.FromString(
            bytes.fromhex(request)
        )
        by_slot.setdefault(slot_of(fields.username), []).append(request)
    return by_slot


def move(
    source: Estate,
    target: Estate,
    operator: Operator,
    slots: range,
    by_slot: dict[int, list[str]],
) -> Move:
    """Move slots while their users sign in. Raises `RuntimeError` if users are missing."""
    population = source.population
    moving = [
        number
        for number in range(population.users)
        if slot_of(population.username(number)) in slots
    ]
    requests = [each for slot in slots for each in by_slot.get(slot, ())]
    operator.sign_in()
    move_id = operator.prepare(slots)
    ticket, export, receipt = map(operator.path, ("ticket", "export", "receipt"))
    steps: dict[str, float] = {}
    with MovingUsers(source.cluster, target.cluster, requests) as users:
        time.sleep(AROUND_S)
        for name, command in (
            ("freeze", lambda: operator.export("freeze", ticket)),
            ("export", lambda: operator.export("write", ticket, export)),
            ("load", lambda: operator.load("load", export)),
            ("activate", lambda: operator.load("activate", move_id, receipt)),
        ):
            steps[name] = seconds_of(command)
        activated_at = time.perf_counter()
        end_s = seconds_of(lambda: operator.export("end", ticket, receipt))
        time.sleep(AROUND_S)
    came, pieces = operator.arrived(move_id)
    if came != len(moving):
        raise RuntimeError(f"{came} users came, not {len(moving)}")
    spent = sum(each.cluster == "source" for each in users.sign_ins)
    return Move(
        users=came,
        pieces=pieces,
        codes=CODES_EACH * sum(map(population.has_codes, moving)) - spent,
        pause_s=pause_s(users.sign_ins),
        steps=steps,
        end_s=end_s,
        sign_ins=users.sign_ins,
        activated_at=activated_at,
    )


def seconds_of(command: Callable[[], object]) -> float:
    """Return how long a command takes."""
    began = time.perf_counter()
    command()
    return time.perf_counter() - began


def report(bench: Bench, moves: Sequence[Move]) -> None:
    """Report each move; no attempt may be refused after one is activated."""
    for number, each in enumerate(moves, start=1):
        bench.report.add(
            f"move {number}",
            users=each.users,
            codes=each.codes,
            pieces=each.pieces,
            pause_s=round(each.pause_s, 2),
            **{f"{name}_s": round(took, 2) for name, took in each.steps.items()},
            end_s=round(each.end_s, 2),
            sign_ins=len(each.sign_ins),
            refused=each.refused,
            their_answers=dict(
                Counter(
                    " then ".join(one.answers)
                    for one in each.sign_ins
                    if not one.cluster
                )
            ),
        )
    bench.target(
        "(move)",
        "sign-ins that are refused after a move is activated",
        float(sum(each.refused_later for each in moves)),
        0,
    )


def table(report: Report, moves: Sequence[Move]) -> Iterator[str]:
    """Yield the lines of the results page."""
    here = report.machine
    yield f"Measured {here['date']} by `{report.command}`, commit {here['commit']},"
    yield f"{here['machine']}; {here['hardware']}."
    yield ""
    yield row("", "median", "each move")
    yield row("---", "---:", "---")

    def line(words: str, values: list[float], form: str) -> str:
        median = format(statistics.median(values), form)
        return row(words, median, "; ".join(format(each, form) for each in values))

    yield line("users", [each.users for each in moves], ",.0f")
    yield line("their live codes", [each.codes for each in moves], ",.0f")
    yield line("pieces of the export", [each.pieces for each in moves], ",.0f")
    yield line("pause, s", [each.pause_s for each in moves], ".1f")
    for name in STEPS:
        steps = [each.steps[name] for each in moves]
        yield line(f"the command to {name}, s", steps, ".1f")
    ends = [each.end_s for each in moves]
    yield line("after the pause, the command to end in the source, s", ends, ".1f")
    yield line("sign-ins", [len(each.sign_ins) for each in moves], ".0f")
    yield line("of them refused", [each.refused for each in moves], ".0f")
    yield ""
    yield from targets_of(report.content())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.move")
    parser.add_argument("--moved", type=int, default=MOVED, help="users of a move")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--nodes", type=int, default=3, help="of each cluster")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench-move.json")
    arguments = parser.parse_args()
    command = f"make bench-move MOVED={arguments.moved}"
    console, report = Console(), Report(path=arguments.out, command=command)
    bench = Bench(report, None, 1.0, console)  # type: ignore[arg-type]
    with folder_of(None, "sparecode-move-") as folder:
        moves = measure(
            bench,
            folder,
            moved=arguments.moved,
            rounds=arguments.rounds,
            nodes=arguments.nodes,
        )
    report.write()
    report.show(console)
    if arguments.page and len(moves) == arguments.rounds:
        write_part("move", table(report, moves))
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())

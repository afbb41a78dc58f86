# SPDX-License-Identifier: Apache-2.0
"""
Compare an estate with years of audit events with the same estate after one day of them.

`make bench-years`. Both are made by rows (`bulk`), and are measured in turn on one
machine, because a shared machine changes its speed within a minute. What is compared is
bytes, and processor time where there is work: other programs disturb that least.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import random
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from local_cluster.cluster import ADMINISTRATOR, LocalNode, Ports
from rich.console import Console

from sparecode_client import Admin, AuditEvent, AuditFilter
from sparecode_node.domain.membership import TICKETS_MAX
from sparecode_node.services.fields import PAGE_SIZE_DEFAULT
from sparecode_node.statemachine import snapshots
from sparecode_node.statemachine.sealed_events import file_of
from tests.bench import paired
from tests.bench.bulk import FastBuilder, History
from tests.bench.estate import cpu_s, resident_mb, wait_idle
from tests.bench.joining import folder_of, join, kept, pid_of, remove
from tests.bench.page import minutes_of, targets_of, write_part
from tests.bench.population import Population, hand_over, index_names
from tests.bench.report import Report, Target
from tests.results import ROOT, row
from tests.system.machines import PASSWORD, OneMachine, Site, until

YEARS, DAY = "years", "day"
DAY_S = 24 * 3600
SINCE_S = 1095 * DAY_S
USABLE = 8_000
"""Users who can sign in; a quarter of them has a token, and the events."""
ROUNDS = 9
PAGES = 60
AGO = timedelta(days=730)
PAGE_WITHIN = timedelta(days=1)
"""The events of a page are from this time before its end, unless the log has few."""
CHAIN = re.compile(r"(\d+) events in an unbroken chain")
"""In what `sparecode-node doctor` finds about the audit log."""
RARE = "no-such-user"
"""The target of no event."""
READY_S = 300.0
VOTES_S = 120.0
"""How long a new node that serves may take until it votes."""
FETCHED = 5
"""Segments whose fetching is measured; a node that joined has hundreds to fetch."""
STARTS, TURNS, SNAPSHOTS = 3, 3, 5
"""
Starts of a node, turns of the work on its files, and snapshots in each turn, in a round.

The cost of each varies by a tenth and more on a shared machine: many ratios have a
median that is known better.
"""
JOINS_MAX = TICKETS_MAX
"""Of each cluster: within 75 minutes it makes no more tickets, and a run takes less."""
WHOLE_BACKUP = "backup with sealed events"
"""The default of `sparecode cluster backup`. Its cost grows with the events in it."""
PORTS = "ports.json"
"""Written when both folders are complete."""


@dataclass
class Measured:
    """What one estate has cost: the name of a figure -> its value in each round."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Add the value of a round."""
        self.values.setdefault(name, []).append(value)

    @contextlib.contextmanager
    def work(self, name: str) -> Iterator[None]:
        """Measure work of this process."""
        began, cpu = time.perf_counter(), time.process_time()
        yield
        self.add(f"{name}, CPU s", time.process_time() - cpu)
        self.add(f"{name}, s", time.perf_counter() - began)


class Pair(Site):
    """A node's folder with years of events, and one with a day of them; one runs at a time."""

    @property
    def members_ca(self) -> Path:
        return self.directory / YEARS / "tls/members-ca.pem"

    def build(self, users: int, events: int, say: Callable[[str], None]) -> None:
        """Make both folders."""
        years = self.machine("n1", YEARS)
        password = self.directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o600)
        made = self.node(
            years,
            "init",
            "--new-authority",
            "--host=127.0.0.1",
            f"--administrator={ADMINISTRATOR}",
            f"--password-file={password}",
        )
        if made.returncode:
            raise RuntimeError(made.stderr)
        shutil.copytree(years.directory, self.directory / DAY)
        one = OneMachine(years, password)
        population = Population(
            users=users, profile="testing", usable=min(users, USABLE)
        )
        say(f"building {users} users")
        now_ms = time.time_ns() // 1_000_000
        state = self.directory / "estate.db"
        begin_ms = now_ms - SINCE_S * 1000
        FastBuilder(one, state, population, until_ms=begin_ms).build()
        for name, seconds in ((DAY, DAY_S), (YEARS, SINCE_S)):
            count = events * seconds // SINCE_S
            say(f"building {count} events of {seconds // DAY_S} days")
            path = self.directory / f"{name}.db"
            shutil.copy(state, path)
            History(
                one,
                path,
                population,
                events=count,
                begin_ms=now_ms - seconds * 1000,
                end_ms=now_ms,
            ).write()
            machine = self.machines[name] = self._of(years.ports, name)
            index_names(path)
            hand_over(OneMachine(machine, password), path)
        state.unlink()
        (self.directory / PORTS).write_text(json.dumps(dataclasses.asdict(years.ports)))

    def verify(self, name: str, events: int) -> str:
        """
        Return what a node finds about its audit chain, which has these events or more.

        Most of them were written as rows, not by the software that is measured. Raises
        `RuntimeError`.
        """
        done = self.node(self.machines[name], "doctor", "--output", "json")
        try:
            return chain_in(json.loads(done.stdout), events)
        except json.JSONDecodeError:
            raise RuntimeError(f"doctor has failed: {done.stderr}") from None

    def load(self) -> None:
        """Use the folders that `build` has made."""
        ports = Ports(**json.loads((self.directory / PORTS).read_text()))
        for name in (YEARS, DAY):
            self.machines[name] = self._of(ports, name)

    def _of(self, ports: Ports, name: str) -> LocalNode:
        return LocalNode("n1", self.directory / name, ports, testing=True)

    def one(self, name: str) -> OneMachine:
        """Return the cluster in a folder."""
        return OneMachine(self.machines[name], self.directory / "password")


def chain_in(findings: list[dict[str, str]], events: int) -> str:
    """Return the finding about the chain. Raises `RuntimeError`, also for fewer events."""
    found = [each for each in findings if each["subject"] == "audit log"]
    for each in found:
        chain = CHAIN.match(each["words"])
        if each["verdict"] == "ok" and chain and int(chain[1]) >= events:
            return each["words"]
    raise RuntimeError(f"{events} events are not in an unbroken chain: {found}")


def measure_files(
    pair: Pair, names: Sequence[str], measured: dict[str, Measured], *, whole: bool
) -> None:
    """
    Measure what a node does with its whole state, on the files of stopped nodes.

    Each work is done on one estate and then on the other one, in the order of *names*.
    *whole*: also copy all events, which takes minutes.
    """
    states = {name: pair.machines[name].directory / "data/state.db" for name in names}
    for name, state in states.items():
        measured[name].add("state, bytes", state.stat().st_size)
    copies = [
        *[("snapshot", snapshots.write_snapshot)] * SNAPSHOTS,
        ("backup without sealed events", snapshots.write_state_alone),
    ]
    if whole:
        copies.append((WHOLE_BACKUP, snapshots.write_whole))
    for work, write in copies:
        copy = pair.directory / f"{work}.db"
        for name, state in states.items():
            with measured[name].work(work):
                write(state, copy)
            measured[name].add(f"{work}, bytes", copy.stat().st_size)
            copy.unlink()
    for name, state in states.items():
        with measured[name].work("digest"):
            snapshots.read_state(state)


def joins_of(rounds: int) -> list[int]:
    """Return how often a node joins in each round: as many joins in all as there may be."""
    ends = [JOINS_MAX * number // rounds for number in range(rounds + 1)]
    return [end - begin for begin, end in itertools.pairwise(ends)]


def measure_node(
    pair: Pair,
    name: str,
    measured: Measured,
    *,
    joins: int,
    within: timedelta | None,
) -> None:
    """
    Measure start, pages of the audit log, and the join of a new node.

    *within*: see `measure_pages`. None: the log has no events of two years ago.
    """
    node, cluster = pair.machines[name], pair.one(name)
    for _ in range(STARTS):
        node.stop()
        began = time.perf_counter()
        node.start()
        cluster.wait_ready(timeout_s=READY_S, poll_s=0.02)
        measured.add("start, s", time.perf_counter() - began)
        measured.add("start, CPU s", cpu_s(pid_of(node)))
    measured.add("memory, MB", resident_mb(pid_of(node)))
    try:
        until(lambda: pair.sign_in().returncode == 0)
        if within is not None:
            for page, took in measure_pages(pair, node, within=within).items():
                measured.add(page, took)
        for _ in range(joins):
            wait_idle([node])
            measure_join(pair, name, measured)
    finally:
        node.stop()


def measure_join(pair: Pair, name: str, measured: Measured) -> None:
    """Measure the join of a new node, and remove it."""
    node = pair.machines[name]
    joined = join(pair, pair.one(name), name, ready_s=READY_S, votes_s=VOTES_S)
    fetched = fetch_cpu_s(node, joined.node)
    votes = joined.votes.result()
    for step, took in (("serves", joined.serves), ("votes", votes)):
        measured.add(f"join until it {step}, s", took.seconds)
        measured.add(f"join until it {step}, CPU s", took.cpu_s)
    measured.add("a sealed segment fetched after the join, CPU s", fetched)
    remove(pair, joined.node)


def fetch_cpu_s(first: LocalNode, new: LocalNode) -> float:
    """Return what each of the segments costs both nodes that a new node fetches now."""

    def fetched() -> int:
        return new.log.read_text().count("segment_fetched")

    def both_s() -> float:
        return cpu_s(pid_of(first)) + cpu_s(pid_of(new))

    until(lambda: fetched() > 0)
    begun, cpu = fetched(), both_s()
    until(lambda: fetched() >= begun + FETCHED)
    return (both_s() - cpu) / (fetched() - begun)


def measure_pages(
    pair: Pair, node: LocalNode, *, within: timedelta
) -> dict[str, float]:
    """
    Return the p50 of a page two years ago, by its time and by its place, in ms.

    And that of a call that looks for a rare event: it finds none in what it looks at.
    *within*: pages must be full, of events from this time before their end.
    """
    draw = random.Random(20)
    by_time, following, rare = [], [], []
    with Admin(node.admin_address, ca=pair.members_ca) as admin:
        admin.login(ADMINISTRATOR, PASSWORD)
        for _ in range(PAGES):
            end = datetime.now(UTC) - AGO - timedelta(hours=draw.uniform(0, 2000))
            criteria = AuditFilter(end_time=end)
            began = time.perf_counter()
            page = admin.list_audit_events(criteria)
            by_time.append(time.perf_counter() - began)
            began = time.perf_counter()
            after = admin.list_audit_events(criteria, page_token=page.next_page_token)
            following.append(time.perf_counter() - began)
            check_pages(page.items, after.items, end, within)
            seldom = AuditFilter(end_time=end, target=RARE)
            began = time.perf_counter()
            page = admin.list_audit_events(seldom)
            rare.append(time.perf_counter() - began)
            if page.items:
                raise RuntimeError(f"the log has events of {RARE}")
    return {
        "page two years ago by time, p50 ms": statistics.median(by_time) * 1000,
        "the page after it, p50 ms": statistics.median(following) * 1000,
        "a call that looks for a rare event, p50 ms": statistics.median(rare) * 1000,
    }


def check_pages(
    page: Sequence[AuditEvent],
    after: Sequence[AuditEvent],
    end: datetime,
    within: timedelta,
) -> None:
    """Raise `RuntimeError` unless both are full, and go on from *end* back in time."""
    events = [*page, *after]
    times = [each.time or datetime.max.replace(tzinfo=UTC) for each in events]
    numbers = [each.sequence for each in events]
    first = numbers[0] if numbers else 0
    if (len(page), len(after)) != (PAGE_SIZE_DEFAULT, PAGE_SIZE_DEFAULT):
        raise RuntimeError(f"pages before {end} have {len(page)}, {len(after)} events")
    if numbers != list(range(first, first - len(events), -1)):
        raise RuntimeError(f"pages before {end} leave out events: {numbers}")
    if not end - within <= min(times) <= max(times) < end:
        raise RuntimeError(f"pages before {end} are of {min(times)} to {max(times)}")


RATIOS = (
    *("state, bytes", "snapshot, bytes", "snapshot, CPU s", "digest, CPU s"),
    *(
        "backup without sealed events, bytes",
        "backup without sealed events, CPU s",
        "start, CPU s",
        "join until it serves, CPU s",
    ),
)
RATIO_MAX = 1.1
PAGE_MS_MAX = 50.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.years")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=20_000_000, help="of three years")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="0: only build")
    parser.add_argument(
        "--folder", type=Path, help="keep the estates here, and use them again"
    )
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench-years.json")
    arguments = parser.parse_args()
    rounds = [] if arguments.rounds == ROUNDS else [f"--rounds {arguments.rounds}"]
    command = (
        f"make bench-years USERS={arguments.users} EVENTS={arguments.events}"
        f"{kept(arguments.folder, *rounds)}"
    )
    console, report = Console(), Report(path=arguments.out, command=command)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(folder_of(arguments.folder, "sparecode-years-"))
        pair = Pair(folder)
        stack.callback(pair.kill)
        if (folder / PORTS).exists():
            pair.load()
        else:
            pair.build(arguments.users, arguments.events, console.print)
            took_s = time.monotonic() - report.began
            console.print(f"built in {took_s:.0f} s")
            console.print(f"verified: {pair.verify(YEARS, arguments.events)}")
        if not arguments.rounds:
            return 0
        few = timedelta(seconds=4 * PAGE_SIZE_DEFAULT * SINCE_S / arguments.events)
        within = {DAY: None, YEARS: max(PAGE_WITHIN, few)}
        measured = {DAY: Measured(), YEARS: Measured()}
        for number, joins in enumerate(joins_of(arguments.rounds)):
            console.print(f"round {number + 1}")
            # Each is the first one in every other round: the machine changes its speed.
            names = (DAY, YEARS) if number % 2 else (YEARS, DAY)
            for turn in range(TURNS):
                order = names[:: -1 if turn % 2 else 1]
                measure_files(pair, order, measured, whole=not number and not turn)
            for name in names:
                measure_node(
                    pair, name, measured[name], joins=joins, within=within[name]
                )
        sizes = sizes_of(pair)
    add_results(report, measured, sizes)
    report.finish()
    report.show(console)
    if arguments.page:
        write_part("years", table(report, measured, sizes))
    return report.exit_code()


def sizes_of(pair: Pair) -> dict[str, int]:
    """Return the bytes of the files of sealed events."""
    return {
        name: file_of(pair.machines[name].directory / "data/state.db").stat().st_size
        for name in (DAY, YEARS)
    }


def ratio_of(measured: dict[str, Measured], name: str) -> paired.Estimate:
    """
    Return how many times as much the years cost.

    The median of the ratios of each round: the machine changes its speed between rounds.
    """
    return paired.ratio(measured[YEARS].values[name], measured[DAY].values[name])


def add_results(
    report: Report, measured: dict[str, Measured], sizes: dict[str, int]
) -> None:
    """Add figures and targets to the report."""
    for name, each in measured.items():
        figures = {
            figure: [float(f"{value:.6g}") for value in values]
            for figure, values in each.values.items()
        }
        report.add(name, sealed_bytes=sizes[name], **figures)
    for figure in RATIOS:
        times = ratio_of(measured, figure)
        report.targets.append(
            Target(
                name="(years)",
                words=f"{figure}: years, as a multiple of one day",
                value=times.median,
                target=RATIO_MAX,
                at_least=False,
                interval=(times.low, times.high),
            )
        )
    pages = [name for name in measured[YEARS].values if name.endswith("p50 ms")]
    for figure in pages:
        report.targets.append(
            Target(
                name="(years)",
                words=figure,
                value=statistics.median(measured[YEARS].values[figure]),
                target=PAGE_MS_MAX,
                at_least=False,
                unit=" ms",
            )
        )


def table(
    report: Report, measured: dict[str, Measured], sizes: dict[str, int]
) -> Iterator[str]:
    """Yield the lines of the results page."""
    here = report.machine
    yield f"Measured {here['date']} by `{report.command}`, commit {here['commit']},"
    yield f"{here['machine']}; {here['hardware']}. The medians of"
    yield f"{len(measured[DAY].values['memory, MB'])} rounds, and of the ratios of each with its interval of 95 %, in {minutes_of(report.results)}; sealed events on disk:"
    yield f"{sizes[DAY] / 1e6:,.0f} MB after a day, {sizes[YEARS] / 1e6:,.0f} MB after years."
    yield ""
    yield row("", "one day of events", "years of events", "ratio", "bound")
    yield row("---", "---:", "---:", "---:", "---:")
    for figure, values in measured[YEARS].values.items():
        years = f"{statistics.median(values):,.4g}"
        if figure not in measured[DAY].values:  # It has no events of that time.
            yield row(figure, "", years, "", f"at most {PAGE_MS_MAX:.0f} ms")
            continue
        day = statistics.median(measured[DAY].values[figure])
        times = ratio_of(measured, figure)
        ratio, bound = f"{times.median:.2f}", ""
        if figure in RATIOS:
            bound = f"at most {RATIO_MAX}"
            ratio += f" ({times.low:.2f} to {times.high:.2f})"
        yield row(figure, f"{day:,.4g}", years, ratio, bound)
    yield ""
    yield from targets_of(report.content())


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""The report of a campaign: figures, faults with their proof, and the verdict."""

import dataclasses
import json
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import probes
from tests.faults.checker import Verdict
from tests.faults.doors import ANY
from tests.faults.final_log import FinalLog
from tests.faults.ghosts import Ghosts
from tests.faults.history import Kind, Operation, Outcome
from tests.faults.nemesis import NO_QUORUM, Strike
from tests.faults.probes import Probes
from tests.results import now_and_here

SUCCESSES_PER_S_MIN = 10
DEFINITE_MIN = 0.30
SECOND_NS = 1_000_000_000
ROLLING_RESTART = "rolling_restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time during which the clients worked."""

    begin_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """The length of the span."""
        return (self.end_ns - self.begin_ns) / SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The state of every node after the run."""

    nodes: int
    reads: int
    """Reads of every code on every node."""
    digest: str
    """The digest of all nodes; empty if they differ."""
    lost: tuple[str, ...]
    """Acknowledged changes that are missing: code, node, and the state found instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """All observations of a campaign."""

    span: Span
    operations: Sequence[Operation]
    verdict: Verdict
    final: Final
    log: FinalLog
    planned: Sequence[str]
    """Faults that must happen at least once."""
    strikes: Sequence[Strike]
    ghosts: Sequence[Ghosts]
    errors: Mapping[str, int]
    users: int
    restarts: int
    bugs: int
    """Calls that failed because of a bug, by the nodes' own logs."""
    compactions: int
    installed: int
    """Snapshots installed by nodes whose missing entries had left the others' logs."""
    probes: Probes | None
    """What the prober saw; None: there were no faults."""
    load: tuple[float, ...]
    """The load average of the machine over five minutes, before and after."""


def figures(campaign: Campaign) -> dict[str, Any]:
    """Return the figures, ready for JSON."""
    span = campaign.span
    operations = [
        each for each in campaign.operations if _within(each.invoked_ns, span)
    ]
    answers = sorted(
        each.returned_ns
        for each in operations
        if each.outcome is Outcome.ANSWERED and each.returned_ns is not None
    )
    without = without_quorum(campaign.strikes)
    quorum_s = max(
        span.seconds - sum(end - begin for begin, end in without) / SECOND_NS, 1e-9
    )
    in_vain = sum(_count(answers, begin, end) for begin, end in without)
    gaps = [
        (later - earlier, earlier)
        for earlier, later in zip(
            [span.begin_ns, *answers], [*answers, span.end_ns], strict=True
        )
    ]
    longest_ns, at_ns = max(gaps)
    longest_with_ns = max(
        (
            gap
            for gap, begin in gaps
            if not any(begin < end and begin + gap > start for start, end in without)
        ),
        default=0,
    )
    outcomes = Counter(each.outcome for each in operations)
    return {
        "seconds": round(span.seconds, 1),
        "operations": len(operations),
        "kinds": dict(Counter(each.kind.value for each in operations)),
        "results": dict(
            Counter(each.result.value for each in operations if each.result is not None)
        ),
        "consumes": _by_protocol(operations),
        "answered": outcomes[Outcome.ANSWERED],
        "not_done": outcomes[Outcome.NOT_DONE],
        "unknown": outcomes[Outcome.OPEN],
        "definite_part": round(outcomes[Outcome.ANSWERED] / max(1, len(operations)), 4),
        "successes_per_s_with_quorum": round((len(answers) - in_vain) / quorum_s, 1),
        "longest_without_success_s": round(longest_ns / SECOND_NS, 2),
        "longest_without_success_during": _during(at_ns, longest_ns, campaign.strikes),
        "longest_without_success_with_quorum_s": round(longest_with_ns / SECOND_NS, 2),
        "success_after_kill_s": [
            round(each.proof.success_s, 3)
            for each in campaign.strikes
            if each.proof.success_s is not None
        ],
        "codes": campaign.verdict.codes,
        "users": campaign.users,
        "restarts": campaign.restarts,
        "bugs": campaign.bugs,
        "compactions": campaign.compactions,
        "snapshots_installed": campaign.installed,
        "load": [round(each, 1) for each in campaign.load],
        "errors": dict(campaign.errors),
        "probes": None
        if campaign.probes is None
        else {
            key: round(value, 2) if isinstance(value, float) else value
            for key, value in dataclasses.asdict(campaign.probes).items()
        },
        "log": dataclasses.asdict(campaign.log),
        "final_reads": campaign.final.reads,
        "final_digest": campaign.final.digest,
        "strikes": [_strike(each, answers, operations) for each in campaign.strikes],
        "ghosts": [dataclasses.asdict(each) for each in campaign.ghosts],
        "double_spends": list(campaign.verdict.double_spends),
        "not_linearizable": list(campaign.verdict.not_linearizable),
        "acknowledged_and_lost": list(campaign.final.lost),
    }


def without_quorum(strikes: Iterable[Strike]) -> list[tuple[int, int]]:
    """
    Return beginning and end of each time in which no quorum can be relied on.

    It ends when a majority serves: a node that comes back later is no excuse.
    """
    return [
        (each.begin_ns, each.quorum_ns) for each in strikes if each.fault in NO_QUORUM
    ]


def failures(campaign: Campaign, numbers: Mapping[str, Any]) -> list[str]:
    """Return the reasons why the campaign failed; empty if it passed."""
    return [
        *_broken(campaign),
        *_noticed(numbers),
        *(_too_little(campaign, numbers) if campaign.planned else []),
        *(
            probes.failures(campaign.probes, campaign.span.seconds)
            if campaign.probes
            else []
        ),
        *_unconvincing(campaign.ghosts),
    ]


def _broken(campaign: Campaign) -> list[str]:
    """Return the broken promises."""
    why = []
    if campaign.verdict.double_spends:
        why.append(f"{len(campaign.verdict.double_spends)} double spends")
    if campaign.verdict.not_linearizable:
        why.append(
            f"{len(campaign.verdict.not_linearizable)} codes with answers that no "
            "order explains"
        )
    if campaign.final.lost:
        why.append(f"{len(campaign.final.lost)} acknowledged facts lost")
    if not campaign.final.digest:
        why.append("the states of the nodes differ")
    all_reads = campaign.final.nodes * campaign.verdict.codes
    if not campaign.final.reads == all_reads > 0:
        why.append(f"{campaign.final.reads} of {all_reads} final states were read")
    if false := sum(each.false_acknowledgements for each in campaign.ghosts):
        why.append(f"{false} false acknowledgements")
    why += [
        f"{each.fault}: {each.failure}" for each in campaign.strikes if each.failure
    ]
    why += campaign.log.faults
    if campaign.bugs:
        why.append(
            f"{campaign.bugs} calls failed because of a bug: see the nodes' logs"
        )
    return why


def _noticed(numbers: Mapping[str, Any]) -> list[str]:
    """Return how clients noticed rolling restarts, which they must not."""
    restarts = [each for each in numbers["strikes"] if each["fault"] == ROLLING_RESTART]
    unserved = sum(each["unserved"] for each in restarts)
    if unserved:
        return [f"{unserved} calls failed after all retries in a rolling restart"]
    if restarts and not any(each["asked"] for each in restarts):
        return ["no client with all nodes made a call in a rolling restart"]
    return []


def _unconvincing(ghosts: Sequence[Ghosts]) -> list[str]:
    """Return why the cut-off primaries prove too little."""
    why = []
    if any(not each.dropped for each in ghosts):
        why.append("a primary was not cut off: no packets dropped")
    if ghosts and not any(each.unknown and each.elsewhere for each in ghosts):
        why.append("no change was in progress on a cut-off primary while others led")
    return why


def _too_little(campaign: Campaign, numbers: Mapping[str, Any]) -> list[str]:
    """Return why the campaign proves too little."""
    struck = {each.fault for each in campaign.strikes}
    bit = {each.fault for each in campaign.strikes if each.proof.bit}
    why = [f"{fault} never had an effect" for fault in sorted(struck - bit)]
    missed = sorted({*campaign.planned} - struck)
    if missed and not any(each.failure for each in campaign.strikes):
        why.append(f"too short for {', '.join(missed)}")
    if not campaign.compactions:
        why.append("no log was compacted")
    if not campaign.log.sealed:
        why.append("no segment of the audit log was sealed")
    if numbers["successes_per_s_with_quorum"] < SUCCESSES_PER_S_MIN:
        why.append(f"fewer than {SUCCESSES_PER_S_MIN} successes per second")
    if numbers["definite_part"] < DEFINITE_MIN:
        why.append(f"less than {DEFINITE_MIN:.0%} of the operations were answered")
    return why


def _by_protocol(operations: Sequence[Operation]) -> dict[str, tuple[int, int]]:
    """Return the answered and all attempts with a code, by protocol."""
    protocols: dict[str, list[Operation]] = {}
    for each in operations:
        if each.kind is Kind.CONSUME:
            protocols.setdefault(each.protocol or "gRPC", []).append(each)
    return {
        name: (sum(each.outcome is Outcome.ANSWERED for each in found), len(found))
        for name, found in sorted(protocols.items())
    }


def text(numbers: Mapping[str, Any], why: Sequence[str]) -> str:
    """Return the report as text."""
    lines = [
        f"{numbers['operations']} operations in {numbers['seconds']:.0f} s on "
        f"{numbers['codes']} codes of {numbers['users']} users: "
        + ", ".join(f"{count} {kind}" for kind, count in numbers["kinds"].items()),
        "answered attempts with a code, of all: "
        + ", ".join(
            f"{answered} of {count} by {protocol}"
            for protocol, (answered, count) in numbers["consumes"].items()
        ),
        (
            f"answered {numbers['answered']} ({numbers['definite_part']:.1%}), "
            f"not done {numbers['not_done']}, "
            f"unknown {numbers['unknown']}"
        ),
        ", ".join(f"{count} {result}" for result, count in numbers["results"].items()),
        f"{numbers['successes_per_s_with_quorum']} successes/s while a quorum existed",
        (
            f"longest time without a success: {numbers['longest_without_success_s']} s "
            f"({numbers['longest_without_success_during']}), "
            f"{numbers['longest_without_success_with_quorum_s']} s while a quorum existed"
        ),
        (
            f"{len(numbers['strikes'])} faults, {numbers['restarts']} restarts; final "
            f"state: {numbers['final_reads']} reads, "
            f"digest {numbers['final_digest'][:16] or 'UNEQUAL'}"
        ),
        (
            f"logs compacted {numbers['compactions']} times, "
            f"{numbers['snapshots_installed']} snapshots installed"
        ),
        f"load of the machine before and after: {numbers['load']}",
        *(f"{name}: {value}" for name, value in log_lines(numbers["log"])),
    ]
    if seen := numbers["probes"]:
        lines.append(
            f"prober: {seen['calls']} calls, {seen['accepted']} accepted,"
            f" {seen['failed']} failed; longest time without an answer while a quorum"
            f" existed: {seen['gap_s']} s; slowest answer {seen['slowest_s']} s"
        )
    if numbers["strikes"]:
        lines += [
            "",
            "fault               times  effect  fewest successes/s  slowest recovery s",
        ]
    for fault in sorted({each["fault"] for each in numbers["strikes"]}):
        strikes = [each for each in numbers["strikes"] if each["fault"] == fault]
        lines.append(
            f"{fault:18}  {len(strikes):5}  {sum(each['bit'] for each in strikes):6}"
            f"  {min(each['successes_per_s'] for each in strikes):18.1f}"
            f"  {max(each['return_s'] for each in strikes):18.1f}"
        )
    if after := numbers["success_after_kill_s"]:
        lines.append(
            f"\nprimary killed {len(after)} times, next success on the survivors: "
            f"median {statistics.median(after):.2f} s, maximum {max(after):.2f} s"
        )
    if numbers["ghosts"]:
        false = sum(each["false_acknowledgements"] for each in numbers["ghosts"])
        lines.append(
            f"\ncut-off primary: {len(numbers['ghosts'])} runs, {false} false "
            "acknowledgements"
        )
    if restarts := rolling_restarts(numbers):
        lines.append(f"\nrolling restarts: {restarts}")
    anomalies = {*numbers["double_spends"], *numbers["not_linearizable"]}
    lines.append(
        f"\ndouble_spends {len(numbers['double_spends'])}, anomalies {len(anomalies)}, "
        f"acknowledged and lost {len(numbers['acknowledged_and_lost'])}"
    )
    lines += [f"FAILED: {each}" for each in why] or ["passed"]
    return "\n".join(lines)


def log_lines(log: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the figures of the audit log and of its receivers, each with its name."""
    return [
        (
            "events of the audit log, the same and proved on every node",
            f"{log['events']:,}",
        ),
        (
            "segments sealed; fetched from other members",
            f"{log['sealed']:,}; {log['fetched']:,}",
        ),
        *(
            [
                (
                    "segments proved in every archive; of these removed from all nodes",
                    f"{log['archived']:,}; {log['removed']:,}",
                )
            ]
            if "archived" in log
            else []
        ),
        ("committed events that the webhook wants", f"{log['committed']:,}"),
        ("of these, arrived", f"{log['arrived']:,}"),
        ("arrived again, under the same id", f"{log['repeated']:,}"),
        ("refused at first by the webhook", f"{log['refused']:,}"),
        ("dropped, and said to be", f"{log['dropped']:,}"),
        ("lines in the files of all nodes", f"{log['filed']:,}"),
    ]


def rolling_restarts(numbers: Mapping[str, Any]) -> str:
    """Return the calls of clients with all nodes, and how many failed; empty if no restart."""
    restarts = [each for each in numbers["strikes"] if each["fault"] == ROLLING_RESTART]
    if not restarts:
        return ""
    calls = sum(each["asked"] for each in restarts)
    unserved = sum(each["unserved"] for each in restarts)
    return (
        f"{len(restarts)}; of {calls:,} calls by clients that know all nodes,"
        f" {unserved:,} failed after all retries"
    )


def write(directory: Path, numbers: Mapping[str, Any], why: Sequence[str]) -> None:
    """Write the report as JSON and as text, with date and commit."""
    head = {**now_and_here(), "failures": list(why)}
    whole = json.dumps({**head, **numbers}, indent=1)
    (directory / "report.json").write_text(whole + "\n")
    title = f"Faults on real processes, {head['date']}, commit {head['commit']}\n\n"
    lines = "\n".join(
        f"{each['fault']:18}  {each['proof']}" for each in numbers["strikes"]
    )
    (directory / "report.txt").write_text(
        title + text(numbers, why) + "\n\n" + lines + "\n"
    )


def _within(at_ns: int, span: Span) -> bool:
    return span.begin_ns <= at_ns <= span.end_ns


def _count(sorted_ns: Sequence[int], begin_ns: int, end_ns: int) -> int:
    return bisect_left(sorted_ns, end_ns) - bisect_left(sorted_ns, begin_ns)


def _during(at_ns: int, gap_ns: int, strikes: Sequence[Strike]) -> str:
    names = [
        each.fault
        for each in strikes
        if each.begin_ns < at_ns + gap_ns and at_ns < each.ready_ns
    ]
    return ", ".join(names) or "no fault"


def _strike(
    strike: Strike, answers: Sequence[int], operations: Sequence[Operation]
) -> dict[str, Any]:
    lasted_s = (strike.end_ns - strike.begin_ns) / SECOND_NS
    successes = _count(answers, strike.begin_ns, strike.end_ns)
    of_all = [
        each
        for each in operations
        if each.node == ANY and strike.begin_ns <= each.invoked_ns <= strike.ready_ns
    ]
    return {
        "fault": strike.fault,
        "bit": strike.proof.bit,
        "proof": strike.proof.words,
        "lasted_s": round(lasted_s, 2),
        "return_s": round((strike.ready_ns - strike.end_ns) / SECOND_NS, 2),
        "successes_per_s": round(successes / lasted_s, 1),
        "asked": len(of_all),
        "unserved": sum(each.unserved for each in of_all),
        "failure": strike.failure,
    }

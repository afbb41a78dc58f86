# SPDX-License-Identifier: Apache-2.0
"""
Run many seeds, and say what was found: `python -m tests.simulation --seeds 1000`.

Exits with 1 if a promise was broken, or if a fault never took effect; the
output names the seed to run again.
"""

import argparse
import contextlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from tests.fault_points import record as fault_points
from tests.results import ROOT
from tests.simulation import report
from tests.simulation.campaign import (
    Campaign,
    Outcome,
    Verdict,
    timed,
)
from tests.simulation.comparisons import comparisons_of
from tests.simulation.fault_effects import Effect, effects_of
from tests.simulation.kinds import Kind
from tests.simulation.progress import Progress


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--seed", type=int, help="only this one, with its trace")
    parser.add_argument("--nodes", type=int, default=3, choices=range(1, 10))
    parser.add_argument(
        "--jobs", type=int, help="processes; default: one for each core"
    )
    parser.add_argument(
        "--recording",
        action="store_true",
        help="a state machine that only remembers, instead of the real one",
    )
    parser.add_argument(
        "--whole", action="store_true", help="whole nodes, instead of their engines"
    )
    parser.add_argument(
        "--mixed", action="store_true", help="long runs of whole nodes, mixed by seed"
    )
    parser.add_argument(
        "--lost",
        action="store_true",
        help="short runs of whole nodes, whose cluster is lost and begins again",
    )
    parser.add_argument(
        "--outbox", action="store_true", help="with channels and receivers of notices"
    )
    parser.add_argument(
        "--files", action="store_true", help="with simulated files of the states"
    )
    parser.add_argument(
        "--record", action="store_true", help="put enough seeds on the page"
    )
    wanted = parser.parse_args()
    kind = Kind.of([name for name, is_set in vars(wanted).items() if is_set])
    if wanted.seeds < 1:
        parser.error("--seeds: at least 1; none would show nothing")
    campaign = Campaign(nodes=wanted.nodes, recording=wanted.recording, kind=kind)
    console = Console()
    if wanted.seed is not None:
        return trace(console, campaign, wanted.seed)
    seeds = range(wanted.first, wanted.first + wanted.seeds)
    kept = Progress.of(campaign, seeds) if wanted.record else Progress()
    if kept.done.seeds:
        console.print(f"{len(kept.done.seeds)} seeds are done; going on with the rest")
    verdict = timed(
        lambda: run(console, campaign, seeds, wanted.jobs, kept),
        recording=wanted.recording,
        kind=kind,
    )
    verdict = replace(verdict, seconds=kept.seconds)
    kept.forget()
    say(console, campaign, verdict)
    if wanted.record and report.enough(campaign, wanted.seeds):
        report.record_campaign(campaign, wanted.first, verdict)
        console.print(f"written to {report.PAGE.relative_to(ROOT)}")
    enough = wanted.seeds >= fault_points.FROM_SEEDS and not kind.is_mixed
    if wanted.record and enough:
        record_points(campaign, wanted.seeds, verdict.outcome)
    return 0 if verdict.holds else 1


def record_points(campaign: Campaign, seeds: int, outcome: Outcome) -> None:
    """Record at which fault points the schedules have acted."""
    names = {Kind.WHOLE: "whole nodes", Kind.OUTBOX: "notices"}
    names |= {Kind.FILES: "files of the state", Kind.ENGINES: "engines"}
    command = f"make {campaign.kind.target} SEEDS={seeds}"
    if campaign.nodes == 3 and not campaign.recording:
        broken = len(outcome.violations)
        verdict = f"{broken} schedules broke a promise" if broken else "passed"
        fault_points.record(names[campaign.kind], command, outcome.strikes, verdict)


def run(
    console: Console,
    campaign: Campaign,
    seeds: range,
    jobs: int | None,
    kept: Progress,
) -> Outcome:
    """Run the seeds that are left behind a progress bar; return what all have shown."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar("schedules", *columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(seeds))

        def tell(outcome: Outcome) -> None:
            bar.update(task, completed=len(kept.done.seeds))
            for seed, violations in outcome.violations.items():
                for kind, seen in violations.items():
                    console.print(f"[red]seed {seed}: {kind}[/]: {escape(seen)}")

        def progress(few: Sequence[int], outcome: Outcome) -> None:
            kept.add(few, outcome)
            tell(outcome)

        tell(kept.done.outcome)
        campaign.run(kept.left(seeds), jobs=jobs, progress=progress)
        return kept.done.outcome


def trace(console: Console, campaign: Campaign, seed: int) -> int:
    """Run one seed, and tell what happened in it."""
    logging.disable(logging.CRITICAL)
    with contextlib.closing(campaign.cluster(seed)) as sim:
        sim.trace.wanted = True
        sim.run()
    for line in sim.trace.lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    effects = [
        f"{sim.effects[effect]} {effect.value}"
        for effect in Effect
        if sim.effects[effect]
    ]
    console.print(f"\n{'; '.join(effects)}", highlight=False)
    for kind, seen in sim.invariants.violations.items():
        console.print(f"[red]{kind}[/]: {escape(seen)}")
    if not sim.invariants.violations:
        console.print(f"[green]seed {seed} kept every promise[/]")
    return 1 if sim.invariants.violations else 0


def say(console: Console, campaign: Campaign, verdict: Verdict) -> None:
    """Print what the faults did and what came of it."""
    outcome = verdict.outcome
    table = Table(
        "fault", title=f"{outcome.seeds:,} schedules of {campaign.nodes} nodes"
    )
    table.add_column("took effect", justify="right")
    for effect in effects_of(campaign.kind):
        number = outcome.effects[effect]
        style = "red" if effect in verdict.absent_effects else None
        table.add_row(effect.value, f"{number:,}", style=style)
    console.print(table)
    checks = Table("check", title="What the checks compared")
    checks.add_column("of these", justify="right")
    for comparison in comparisons_of(campaign.kind, recording=campaign.recording):
        style = "red" if comparison in verdict.absent_comparisons else None
        checks.add_row(
            comparison.value, f"{outcome.comparisons[comparison]:,}", style=style
        )
    console.print(checks)
    console.print(
        f"{outcome.proposals:,} proposals, {outcome.acknowledged:,} requests"
        f" acknowledged, {outcome.codes_accepted:,} codes and tokencodes spent;"
        f" {verdict.seconds:.0f} s"
    )
    if campaign.kind.is_whole:
        console.print(
            f"a core left alone: at most {outcome.longest_s:.1f} s without an answer,"
            f" and {outcome.longest_each_s:.1f} s without one of each of its nodes"
        )
    if campaign.kind.is_mixed:
        console.print(
            f"the highest index: {outcome.highest_index:,};"
            f" the longest log: {outcome.longest_log:,} entries"
        )
    for effect in verdict.absent_effects:
        console.print(f"[red]failed: there were no {effect.value}[/]")
    for comparison in verdict.absent_comparisons:
        console.print(f"[red]failed: nothing to check: no {comparison.value}[/]")
    if not verdict.is_due(of_mixes=campaign.kind.is_mixed):
        console.print(
            f"[yellow]only {outcome.seeds} schedules: a fault that never took effect"
            " does not count as a failure[/]"
        )
    if not outcome.violations:
        console.print(f"[green]0 of {outcome.seeds:,} schedules broke a promise[/]")
        return
    console.print(
        f"[red]{len(outcome.violations)} of {outcome.seeds:,} schedules broke a promise[/]"
    )
    seed, nodes = min(outcome.violations), campaign.nodes
    more = f" NODES={nodes}" if nodes != 3 else ""
    again = f"make {campaign.kind.target} SEED={seed}{more}"
    console.print(f"again, with its trace: [bold]{again}[/]")


if __name__ == "__main__":
    sys.exit(main())

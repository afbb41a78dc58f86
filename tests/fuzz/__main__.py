# SPDX-License-Identifier: Apache-2.0
"""
Fuzz every parser, each in a process of its own and for an equal share of the time.

    make fuzz MINUTES=10
    make fuzz TARGET=pskc MINUTES=2

An input that breaks a parser is kept under var/fuzz/. Turn it into an example of its
target, so that `make test` repeats it. `tests/fuzz/test_targets.py` runs the same
targets without atheris.
"""

import argparse
import hashlib
import multiprocessing
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import atheris

from tests.results import FOLDER, ROOT, keep, now_and_here, row

OURS = ["sparecode_node", "sparecode_client", "pskc", "securid", "tests.fuzz.targets"]
"""What is instrumented: coverage of the rest would lead nowhere."""
with atheris.instrument_imports(include=OURS):
    from tests.fuzz.targets import TARGETS, Target

FORK = multiprocessing.get_context("fork")
"""Instrumenting takes a while; it is done once, before the processes."""

PAGE = FOLDER / "fuzz.md"
RECORD_FROM_MINUTES = 10
"""Shorter runs are quick checks and do not go to the page."""
WORK = ROOT / "var" / "fuzz"
ONE_INPUT_S = 25
"""A parser that takes longer for one input has a bug. Key derivations take seconds."""
MEMORY_MIB = 2048
LATE_S = 60
"""A target that ends later than this has a bug, or the machine is too busy."""
INPUT_BYTES_MAX = 65_536
STATISTIC = re.compile(r"stat::(\w+):\s+(\d+)")
COVERAGE = re.compile(r"cov: (\d+)")


def main() -> int:
    """Fuzz, print a line for each target, and return 1 if one broke."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--target", choices=[each.name for each in TARGETS])
    options = parser.parse_args()
    targets = [each for each in TARGETS if options.target in (None, each.name)]
    at_once = os.cpu_count() or 1
    seconds = max(1, round(options.minutes * 60 * at_once / len(targets)))
    started = time.monotonic()
    with ThreadPoolExecutor(at_once) as threads:
        results = list(threads.map(lambda each: fuzzed(each, seconds), targets))
    broken = [result for result in results if result["problem"]]
    print(f"{len(results)} targets, {len(broken)} broken")
    if options.target is None and options.minutes >= RECORD_FROM_MINUTES:
        numbers = {
            **now_and_here(),
            "command": f"make fuzz MINUTES={options.minutes:g}",
            "seconds": round(time.monotonic() - started),
            "targets": results,
        }
        PAGE.write_text(page(keep(PAGE, "fuzz", numbers)["fuzz"]))
    return 1 if broken else 0


def fuzzed(target: Target, seconds: int) -> dict[str, Any]:
    """Fuzz one target in a process of its own; return its numbers."""
    folder = WORK / target.name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for example in target.examples:
        (corpus / hashlib.sha256(example).hexdigest()[:16]).write_bytes(example)
    process = FORK.Process(target=fuzz, args=(target, seconds, folder))
    process.start()
    process.join(seconds + LATE_S)
    if process.is_alive():
        process.kill()
        process.join()
    output = (folder / "output.txt").read_text(errors="replace")
    statistics = dict(STATISTIC.findall(output))
    covered = COVERAGE.findall(output)
    result = {
        "name": target.name,
        "seconds": seconds,
        "inputs": int(statistics.get("number_of_executed_units", 0)),
        "covered": int(covered[-1]) if covered else 0,
        "problem": problem(output) if process.exitcode else "",
    }
    print(
        f"{target.name:18} {result['inputs']:>10,} inputs  "
        f"{result['problem'] or 'no bug'}",
        flush=True,
    )
    return result


def fuzz(target: Target, seconds: int, folder: Path) -> None:
    """Fuzz until the time is over, or to the first bug. libFuzzer ends the process."""
    with (folder / "output.txt").open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    arguments = [
        f"-max_total_time={seconds}",
        f"-timeout={ONE_INPUT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        str(folder / "corpus"),
    ]
    atheris.Setup([sys.argv[0], *arguments], target.refuses)
    atheris.Fuzz()


def problem(output: str) -> str:
    """Return what broke, in a line, and the input that shows it."""
    lines = output.splitlines()
    found = [
        lines[at + 1].strip()
        for at, line in enumerate(lines[:-1])
        if "Uncaught Python exception" in line
    ]
    files = re.findall(r"Test unit written to (\S+)", output)
    errors = [line.strip() for line in lines if "Error" in line or "ERROR" in line]
    what = (found + errors[-1:] + lines[-1:] + ["it ended without words"])[0]
    return f"{what[:200]} {' '.join(str(Path(f).relative_to(ROOT)) for f in files)}"


def page(numbers: dict[str, Any]) -> str:
    """Return the results page."""
    lines = [
        "# Results of fuzzing",
        "",
        f"Written by `make fuzz` (from {RECORD_FROM_MINUTES} minutes on); do not edit.",
        "A target is a parser of what a stranger, a member or a file gives. It breaks if",
        "it raises an error that it does not document, takes more than",
        f"{ONE_INPUT_S} s or {MEMORY_MIB} MiB for one input, or returns a value that fails the target's check.",
        "",
        row("", ""),
        row("---", "---"),
        row("command", f"`{numbers['command']}`"),
        *(row(name, numbers[name]) for name in ("date", "commit", "machine")),
        row("seconds", f"{numbers['seconds']:,}"),
        "",
        row("target", "inputs", "covered places", "result"),
        row("---", "---:", "---:", "---"),
    ]
    lines += [
        row(
            each["name"],
            f"{each['inputs']:,}",
            f"{each['covered']:,}",
            each["problem"] or "no bug",
        )
        for each in numbers["targets"]
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())

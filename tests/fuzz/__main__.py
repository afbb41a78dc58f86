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
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.fuzz.targets import TARGETS, Target
from tests.results import FOLDER, ROOT, keep, now_and_here, row

PAGE = FOLDER / "fuzz.md"
RECORD_FROM_MINUTES = 10
"""Shorter runs are quick checks and do not go to the page."""
WORK = ROOT / "var" / "fuzz"
ONE_INPUT_S = 25
"""A parser that takes longer for one input has a bug. Key derivations take seconds."""
MEMORY_MIB = 2048
START_S = 120
INPUT_BYTES_MAX = 65_536
STATISTIC = re.compile(r"stat::(\w+):\s+(\d+)")
COVERAGE = re.compile(r"cov: (\d+)")


def main() -> int:
    """Fuzz, print a line for each target, and return 1 if one broke."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--target", choices=[each.name for each in TARGETS])
    options = parser.parse_args()
    if find_spec("atheris") is None:
        print(f"make fuzz needs atheris, which is not installed in {sys.prefix}.")
        return 2
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
    """Fuzz one target; return its numbers."""
    folder = WORK / target.name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for example in target.examples:
        (corpus / hashlib.sha256(example).hexdigest()[:16]).write_bytes(example)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.one_target", target.name),
                f"-max_total_time={seconds}",
                f"-timeout={ONE_INPUT_S}",
                f"-rss_limit_mb={MEMORY_MIB}",
                f"-max_len={INPUT_BYTES_MAX}",
                f"-artifact_prefix={folder}/",
                "-print_final_stats=1",
                str(corpus),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds + START_S,
        )
        output, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired:
        output, code = "it did not stop in time", 1
    (folder / "output.txt").write_text(output)
    statistics = dict(STATISTIC.findall(output))
    covered = COVERAGE.findall(output)
    result = {
        "name": target.name,
        "seconds": seconds,
        "inputs": int(statistics.get("number_of_executed_units", 0)),
        "covered": int(covered[-1]) if covered else 0,
        "problem": problem(output) if code else "",
    }
    print(
        f"{target.name:18} {result['inputs']:>10,} inputs  "
        f"{result['problem'] or 'no bug'}",
        flush=True,
    )
    return result


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

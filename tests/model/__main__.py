# SPDX-License-Identifier: Apache-2.0
"""
Check the specification of replication with TLC, and that it sees what is taken out.

    make model
    make model RUN="crashes and power cuts"

Some runs take long. The page docs/results/model.md is written if all have run.
"""

import argparse
import sys
import time
from typing import Any

from tests.model.checker import check
from tests.model.runs import BROKEN, SOUND
from tests.results import FOLDER, keep, now_and_here, row

PAGE = FOLDER / "model.md"


def main() -> int:
    """Make the runs, print a line for each, and return 1 if one is not as expected."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", choices=[*SOUND, *BROKEN])
    only = parser.parse_args().run
    sound = [_sound(name) for name in SOUND if only in (None, name)]
    broken = [_broken(name) for name in BROKEN if only in (None, name)]
    good = all(each["good"] for each in (*sound, *broken))
    if only is None and good:
        numbers = keep(
            PAGE, "model", {**now_and_here(), "sound": sound, "broken": broken}
        )
        PAGE.write_text(page(numbers["model"]))
    return 0 if good else 1


def _sound(name: str) -> dict[str, Any]:
    started = time.monotonic()
    outcome = check(SOUND[name])
    seconds = round(time.monotonic() - started)
    print(
        f"{name}: {outcome.states:,} states, {seconds} s,"
        f" {outcome.violated or 'no invariant'} violated",
        flush=True,
    )
    if outcome.violated:
        print(outcome.story)
    return {
        "name": name,
        "states": outcome.states,
        "seconds": seconds,
        "good": outcome.violated is None,
    }


def _broken(name: str) -> dict[str, Any]:
    started = time.monotonic()
    outcome = check(BROKEN[name], broken=[name])
    seconds = round(time.monotonic() - started)
    print(
        f'without "{name}": {outcome.violated or "NOT FOUND"} after'
        f" {outcome.states:,} states, {seconds} s",
        flush=True,
    )
    return {
        "name": name,
        "states": outcome.states,
        "seconds": seconds,
        "violated": outcome.violated,
        "good": outcome.violated is not None,
    }


def page(numbers: dict[str, Any]) -> str:
    """Return the page of the results."""
    bounds = {**SOUND, **BROKEN}
    lines = [
        "# Results of the model checker",
        "",
        (
            "Written by `make model`; do not edit. The specification is"
            " [Replication.tla](../../tests/model/Replication.tla); it says what it leaves out."
        ),
        "TLC visits every state within the bounds.",
        "",
        f"{numbers['date']}, commit {numbers['commit']}, {numbers['machine']}.",
        "",
        "## All protections in place: no invariant is violated",
        "",
        row("run", "bounds", "states", "seconds"),
        row("---", "---", "---:", "---:"),
        *(
            row(
                each["name"],
                bounds[each["name"]],
                f"{each['states']:,}",
                each["seconds"],
            )
            for each in numbers["sound"]
        ),
        "",
        "## One protection taken out: a violated invariant is found",
        "",
        row("without", "bounds", "violated", "states until then"),
        row("---", "---", "---", "---:"),
        *(
            row(
                each["name"],
                bounds[each["name"]],
                each["violated"],
                f"{each['states']:,}",
            )
            for each in numbers["broken"]
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

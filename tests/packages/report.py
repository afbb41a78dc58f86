# SPDX-License-Identifier: Apache-2.0
"""The steps of a run, as they pass, and the page of results."""

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "packages.json"

INTRODUCTION = """\
# Results of running the packages

Written by `make packages-test`; do not edit. Each part is the newest run that passed.
The machines are privileged containers whose first process is systemd.
Manifests are validated by `kubernetes-validate` after `kubectl kustomize`, because neither
Debian nor PyPI has `kubeconform`. No Kubernetes cluster has run them.
[deploy.md](../deploy.md#what-was-run-and-what-was-not) says what else was not run.
"""


@dataclasses.dataclass(slots=True)
class Step:
    """One step: what was done, what was seen, and how long it took."""

    words: str
    seen: str = ""
    seconds: float = 0


@dataclasses.dataclass(slots=True)
class Part:
    """Steps with a title."""

    title: str
    steps: list[Step] = dataclasses.field(default_factory=list)


class Report:
    """Prints the steps and keeps them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._part = Part("")

    def part(self, title: str) -> Part:
        """Begin a part."""
        self._part = Part(title)
        self._console.print(f"\n[bold]{title}[/]")
        return self._part

    @contextmanager
    def step(self, words: str) -> Iterator[Step]:
        """Time a step; print it if it passes."""
        step = Step(words)
        started = time.monotonic()
        try:
            yield step
        except BaseException:
            self._console.print(f"[red]NOT[/]  {words}", highlight=False)
            raise
        step.seconds = time.monotonic() - started
        self._part.steps.append(step)
        seen = f": {step.seen}" if step.seen else ""
        self._console.print(
            f"[green]ok[/]   {words}{seen} ({step.seconds:.0f} s)", highlight=False
        )


def keep(part: Part, facts: dict[str, str], results: Path = RESULTS) -> Path:
    """Put a part that passed in the place of its earlier run; return the page."""
    kept: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    kept[part.title] = {
        "facts": facts,
        "steps": list(map(dataclasses.asdict, part.steps)),
    }
    results.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    page = results.with_suffix(".md")
    page.write_text(page_of(kept))
    return page


def page_of(kept: dict[str, Any]) -> str:
    """Return the page of all parts."""
    lines = [INTRODUCTION.rstrip()]
    for title, part in sorted(kept.items()):
        facts = ", ".join(f"{name} {value}" for name, value in part["facts"].items())
        lines += ["", f"## {title}", "", f"{facts}.", ""]
        lines += ["| step | seen | seconds |", "| --- | --- | ---: |"]
        lines += [
            f"| {each['words']} | {each['seen']} | {each['seconds']:.0f} |"
            for each in part["steps"]
        ]
    return "\n".join(lines) + "\n"

# SPDX-License-Identifier: Apache-2.0
"""
Results pages: the latest campaigns, and how to repeat them.

Each page has its numbers next to it as JSON. A campaign replaces its own numbers.
"""

import datetime as dt
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "results"
UNKNOWN, WITH_CHANGES = "unknown", " with changes"
"""Of a commit: there is none, or files have changed since."""


def now_and_here() -> dict[str, str]:
    """Return the date, commit and machine of this run."""
    commit = _git("rev-parse", "--short=12", "HEAD") or UNKNOWN
    # Leaves docs out: writing the page changes it.
    changed = _git("status", "--porcelain", "--", "node", "protos", "tests")
    return {
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit + (WITH_CHANGES if changed else ""),
        "machine": f"{os.cpu_count()} cores, {platform.system()},"
        f" Python {platform.python_version()}",
    }


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def keep(page: Path, name: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """Keep the numbers of one campaign next to a page; return those of all."""
    kept = page.with_suffix(".json")
    kept.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    results[name] = numbers
    text = json.dumps(results, indent=1, sort_keys=True)
    kept.write_text(text + "\n")
    # Return what the next run will read, so that page and numbers match.
    written: dict[str, Any] = json.loads(text)
    return written


def row(*cells: object) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"

# SPDX-License-Identifier: Apache-2.0
"""
Results pages: what the last campaigns have shown, and how to repeat them.

The numbers are kept beside a page as JSON; each campaign replaces its own.
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


def now_and_here() -> dict[str, str]:
    """Return when and on what this runs."""
    commit = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    # The page itself changes by being written.
    changed = _git("status", "--porcelain", "--", "node", "protos", "tests")
    return {
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit + (" with changes" if changed else ""),
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
    """Keep the numbers of one campaign beside a page; return those of all."""
    kept = page.with_suffix(".json")
    kept.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    results[name] = numbers
    text = json.dumps(results, indent=1, sort_keys=True)
    kept.write_text(text + "\n")
    # As the next one will read them: so a page is what its numbers are.
    written: dict[str, Any] = json.loads(text)
    return written


def row(*cells: object) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"

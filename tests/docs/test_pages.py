# SPDX-License-Identifier: Apache-2.0
"""Pages that people read: what they link to is there, and so is what alerts name."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "node").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"


def anchors(page: Path) -> set[str]:
    """Name the headings of a page, as GitHub does."""
    text = CODE.sub("", page.read_text())
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(text)
    }


def check(target: str, page: Path) -> None:
    """Hold a link against what is there."""
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    assert path.exists(), f"{page.relative_to(ROOT)} links to {target}"
    if anchor:
        assert anchor in anchors(path), f"{page.relative_to(ROOT)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(CODE.sub("", page.read_text())):
        if not target.startswith(("http://", "https://", "mailto:")):
            check(target, page)


def test_every_alert_has_a_page_that_says_what_to_do() -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    named = [
        rule["annotations"]["runbook"] for group in groups for rule in group["rules"]
    ]
    assert named
    for target in named:
        check(target, ROOT / "README.md")

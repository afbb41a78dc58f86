# SPDX-License-Identifier: Apache-2.0
"""Links in pages lead to existing files and headings, and so do links in alerts."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
    *sorted((ROOT / "node").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    text = CODE.sub("", page.read_text())
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(text)
    }


def check(target: str, page: Path) -> None:
    """Check that the file of a link exists, and its anchor if it has one."""
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    assert path.exists(), f"{page.relative_to(ROOT)} links to {target}"
    if anchor:
        assert anchor in anchors(path), f"{page.relative_to(ROOT)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_existing_places(page: Path) -> None:
    for link, picture in LINK.findall(CODE.sub("", page.read_text())):
        target = link or picture
        if not target.startswith(("http://", "https://", "mailto:")):
            check(target, page)


def test_every_alert_links_to_instructions() -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    links = [
        rule["annotations"]["runbook"] for group in groups for rule in group["rules"]
    ]
    assert links
    for target in links:
        check(target, ROOT / "README.md")

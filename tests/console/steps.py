# SPDX-License-Identifier: Apache-2.0
"""
Pictures of the twelve steps of issuing codes: `make steps` fills var/steps.

Each step is taken on a desk and on a phone. `docs/results/console-pictures.md` shows them beside
those of release 0.1.0. Those are made by this file in a checkout of 0.1.0, so it uses
only what was there already.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from local_cluster.cluster import ADMINISTRATOR
from PIL import Image
from playwright.sync_api import Page, expect

from tests.console.estate import (
    CHROMIUM,
    PIN,
    Estate,
    Holder,
    new_window,
    running_chromium,
    running_estate,
    sign_in,
)

FOLDER = Path(__file__).resolve().parents[2] / "var" / "steps"
SIZES = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 1.5,
        "has_touch": True,
    },
}
PEOPLE = ("alice.ash", "bela.nagy", "chidi.okafor", "deniz.kaya", "emma.lind")
COLORS = 96
"""Of a picture: a page has few, and files stay small."""


def steps(
    page: Page, url: str, holder: Holder
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Return the twelve steps, each with a name for its file."""
    yield "01-list", lambda: _open_list(page, url)
    yield "02-search", lambda: _search(page, holder)
    yield "03-menu", lambda: _menu(page, holder)
    yield "04-form", lambda: _open_form(page)
    yield "05-enable", lambda: _choose(page, "Enable authentication with online")
    yield "06-type", lambda: _choose(page, "Set of One-Time Tokencodes")
    yield "07-number", lambda: page.get_by_label("Number of tokencodes").fill("8")
    yield "08-generate", lambda: _generate(page)
    yield "09-codes", lambda: _copy(page)
    yield "10-lifetime", lambda: page.get_by_label("Date").fill("2030-01-01")
    yield (
        "11-token-becomes-available",
        lambda: _choose(page, "Allow authentication with token at any time"),
    )
    yield "12-save", lambda: _save(page)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.console.steps")
    parser.add_argument(
        "--name", default="after", help="what the names of files end in"
    )
    parser.add_argument("--into", type=Path, default=FOLDER)
    chosen = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("chromium is missing: make system-packages installs it.")
    chosen.into.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_estate(Path(folder)) as estate,
        running_chromium() as browser,
    ):
        holders = [estate.holder(name) for name in PEOPLE]
        _use(estate, holders)
        url = estate.cluster.nodes[0].console_url
        for (size, options), holder in zip(SIZES.items(), holders, strict=False):
            window = new_window(browser, color_scheme="light", **options)
            window.grant_permissions(["clipboard-read", "clipboard-write"])
            page = window.new_page()
            sign_in(page, url, ADMINISTRATOR, estate.cluster.password)
            for step, take in steps(page, url, holder):
                take()
                _in_view(page)
                _keep(page, chosen.into / f"{step}-{size}-{chosen.name}.png")
            window.close()
    return 0


def _use(estate: Estate, holders: list[Holder]) -> None:
    """Let some people have codes, so that the list shows several states."""
    issued = estate.admin.issue_tokencodes(holders[2].serial, count=5)
    passcode = PIN + issued.codes[0].code
    assert estate.accepts(estate.cluster.nodes[1], holders[2], passcode)
    estate.admin.disable_token(holders[3].serial)


def _open_list(page: Page, url: str) -> None:
    page.goto(f"{url}/tokens")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Manage Existing")


def _search(page: Page, holder: Holder) -> None:
    page.get_by_label("Search").press_sequentially(holder.username)
    rows = page.locator("#results tbody tr")
    expect(rows).to_have_count(1)


def _menu(page: Page, holder: Holder) -> None:
    page.get_by_role("button", name=f"Actions for token {holder.serial}").click()
    expect(page.locator(".menu:popover-open")).to_be_visible()


def _open_form(page: Page) -> None:
    page.get_by_role("link", name="Emergency Access Tokencodes").click()
    expect(page.locator("#procedure")).to_be_visible()


def _choose(page: Page, label: str) -> None:
    choice = page.get_by_label(label)
    choice.check()
    choice.focus()


def _generate(page: Page) -> None:
    page.locator("#generate").click()
    expect(page.locator("#codes .code")).to_have_count(8)


def _copy(page: Page) -> None:
    page.locator("[data-copy]").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()


def _save(page: Page) -> None:
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")


def _in_view(page: Page) -> None:
    """Show what has the focus in the middle, as a person does who works on it."""
    page.evaluate(
        """() => {
            const focused = document.activeElement;
            if (focused.closest("#procedure"))
                focused.scrollIntoView({block: "center"});
        }"""
    )


def _keep(page: Page, path: Path) -> None:
    picture = Image.open(io.BytesIO(page.screenshot()))
    few = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""
Screenshots of every page of the console: `make screenshots` fills var/screenshots.

Each page is taken in light, in dark, 390 px wide, with more contrast, with forced
colors, and zoomed to 200 %.
Look at them: no test does.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from local_cluster.cluster import ADMINISTRATOR
from playwright.sync_api import Browser, Page
from rich.console import Console

from tests.console.estate import (
    CHROMIUM,
    Estate,
    Presence,
    new_window,
    running_chromium,
    running_estate,
)
from tests.console.gallery import (
    OWN_FACTOR,
    Exhibit,
    Exhibition,
    exhibits,
    furnish,
    refused_sign_in,
    with_second_factor,
)

FOLDER = Path(__file__).resolve().parents[2] / "var" / "screenshots"
WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 390, "height": 844}
LOOKS = {
    "light": {"color_scheme": "light", "viewport": WIDE},
    "dark": {"color_scheme": "dark", "viewport": WIDE},
    "narrow": {"color_scheme": "light", "viewport": NARROW, "has_touch": True},
    "contrast": {"color_scheme": "light", "viewport": WIDE, "contrast": "more"},
    # As the contrast themes of Windows, which also ask for more contrast.
    "forced": {
        "color_scheme": "dark",
        "viewport": WIDE,
        "forced_colors": "active",
        "contrast": "more",
    },
    # As a window of 1280 pixels at 200 %.
    "zoomed": {
        "color_scheme": "light",
        "viewport": {"width": 640, "height": 400},
        "device_scale_factor": 2,
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.console.screenshots")
    parser.add_argument(
        "--only", default="", help="take only pages whose name begins with this"
    )
    parser.add_argument("--look", choices=sorted(LOOKS))
    chosen = parser.parse_args()
    console = Console()
    if CHROMIUM is None:
        console.print("chromium is missing: make system-packages installs it.")
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    looks = [chosen.look] if chosen.look else list(LOOKS)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_estate(Path(folder)) as estate,
        running_chromium() as browser,
    ):
        shown = furnish(estate)
        for look in looks:
            taken = _take(browser, estate, shown, look, chosen.only)
            console.print(f"{taken} pages, {look}")
        _take_own(browser, estate, looks, chosen.only)
    console.print(
        f"The pictures are in {FOLDER.relative_to(Path.cwd())}/. Look at them."
    )
    return 0


def _take(
    browser: Browser, estate: Estate, shown: Exhibition, look: str, only: str
) -> int:
    window = new_window(browser, **LOOKS[look])
    page = window.new_page()
    # The page asks before unsaved codes are left.
    page.on("dialog", lambda dialog: dialog.accept())
    url = estate.cluster.nodes[0].console_url
    taken = 0
    if "sign-in".startswith(only):
        refused_sign_in(page, url)
        _keep(page, "sign-in", look)
        taken += 1
    root = Presence(page, url, ADMINISTRATOR, estate.cluster.password)
    for exhibit in exhibits(shown):
        if exhibit.name.startswith(only):
            root.show()
            _show(page, url, exhibit)
            _keep(page, exhibit.name, look)
            taken += 1
            if exhibit.name == "emergency-saved" and look != "narrow":
                page.emulate_media(media="print")
                _keep(page, "sheet", look)
                page.emulate_media(media="screen")
    window.close()
    return taken


def _take_own(browser: Browser, estate: Estate, looks: list[str], only: str) -> None:
    """Take the pages of the second factor in one browser: it is set only once."""
    names = [name for name in OWN_FACTOR if name.startswith(only)]
    if not names:
        return
    page = with_second_factor(browser, estate)
    for name in names:
        page.goto(estate.cluster.nodes[0].console_url + OWN_FACTOR[name])
        for look in looks:
            page.emulate_media(
                color_scheme=LOOKS[look]["color_scheme"],  # type: ignore[arg-type]
                forced_colors=LOOKS[look].get("forced_colors", "none"),  # type: ignore[arg-type]
                contrast=LOOKS[look].get("contrast", "no-preference"),  # type: ignore[arg-type]
            )
            page.set_viewport_size(LOOKS[look]["viewport"])  # type: ignore[arg-type]
            _keep(page, name, look)


def _show(page: Page, url: str, exhibit: Exhibit) -> None:
    page.goto(url + exhibit.path)
    if exhibit.prepare:
        exhibit.prepare(page)


def _keep(page: Page, name: str, look: str) -> None:
    page.wait_for_load_state()  # With the script, which converts times.
    page.screenshot(path=FOLDER / f"{name}-{look}.png", full_page=True)


if __name__ == "__main__":
    sys.exit(main())

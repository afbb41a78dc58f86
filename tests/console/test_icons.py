# SPDX-License-Identifier: Apache-2.0
"""Icons: those that pages use are fetched, and no more; screen readers skip them."""

import re

from sparecode_node.console.kit import navigation
from sparecode_node.console.kit.icons import FOLDER, icon

CONSOLE = FOLDER.parent
USE = re.compile(r'icon\("([a-z-]+)"\)')


def used() -> set[str]:
    templates = (CONSOLE / "templates").glob("*.html")
    names = {name for path in templates for name in USE.findall(path.read_text())}
    return names | set(navigation.ICONS.values())


def test_every_icon_that_a_page_uses_is_fetched_and_no_other() -> None:
    named = (CONSOLE / "assets" / "icons.txt").read_text().split()
    assert named == sorted(named)
    assert used() == set(named)
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(named)
    assert "ISC License" in (FOLDER / "LICENSE").read_text()


def test_an_icon_is_for_eyes_only_and_holds_no_style_or_script() -> None:
    for name in used():
        drawing = icon(name)
        assert drawing.startswith('<svg aria-hidden="true" class="lucide')
        assert not re.search(r"<(script|style|title)| on\w+=| style=| id=", drawing)


def test_every_link_of_the_navigation_has_an_icon() -> None:
    links = navigation.navigation(lambda _: True)
    addresses = {address for _, group in links for address, _ in group}
    assert addresses == set(navigation.ICONS)

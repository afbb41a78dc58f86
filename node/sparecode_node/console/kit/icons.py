# SPDX-License-Identifier: Apache-2.0
"""
Icons of Lucide, drawn into the page: they need no request and take the text's color.

`make console-assets` fetches those that `assets/icons.txt` names.
"""

import functools
from pathlib import Path

from markupsafe import Markup

FOLDER = Path(__file__).parents[1] / "icons"


@functools.cache
def icon(name: str) -> Markup:
    """
    Return an icon as SVG. Words beside it tell its meaning: screen readers skip it.

    Raises `FileNotFoundError` if the icon was not fetched.
    """
    text = (FOLDER / f"{name}.svg").read_text()
    drawing = " ".join(text[text.index("<svg") :].split())
    return Markup(drawing.replace("<svg", '<svg aria-hidden="true"', 1))  # noqa: S704

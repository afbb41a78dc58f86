# SPDX-License-Identifier: Apache-2.0
"""
axe, and which pages need its check of contrast.

That check takes three quarters of axe's time, and its verdict on a text depends on the
colors of text and background and on the size. `make test` therefore asks axe only on
pages that have a combination which no page before had; `make looks` asks on every page.
"""

from axe_playwright_python.sync_playwright import Axe

SCRIPT = f"window.loadAxe = () => {{ {Axe().axe_script} }};"
"""
For the start of each page: half a megabyte, which a window then compiles once.

axe keeps the document that it finds when it runs, and at the start there may be none.
"""
WITHOUT_OPTIONS = {"exclude": ["option"]}
"""Hundreds of time zones, shown by the browser itself."""
RUN = """([context, options]) => {
  if (typeof axe !== "object") loadAxe();
  return axe.run(context, options).then(({violations}) =>
    violations.map((each) => `${each.id}: ${each.nodes[0].html}`));
}"""
CONTRAST = "color-contrast"

COLORS = """() => {
  const clear = (color) => color === "rgba(0, 0, 0, 0)";
  const combination = (each, piece) => {
    const { color, fontSize, fontWeight } = getComputedStyle(each, piece);
    const behind = [];
    let opacity = 1;
    for (let around = each; around; around = around.parentElement) {
      const style = getComputedStyle(around);
      if (!clear(style.backgroundColor)) behind.push(style.backgroundColor);
      opacity *= style.opacity;
    }
    return [color, fontSize, fontWeight, opacity, ...behind].join(" ");
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = new Set();
  while (texts.nextNode()) {
    const each = texts.currentNode.parentElement;
    if (texts.currentNode.data.trim() && each.checkVisibility()) {
      found.add(combination(each, null));
    }
  }
  for (const each of document.querySelectorAll("input, select, textarea")) {
    found.add(combination(each, null));
    if (each.placeholder) found.add(combination(each, "::placeholder"));
  }
  return [...found];
}"""
"""The combinations of colors and size of all texts on a page."""


def arguments(*rules: str, contrast: bool = True) -> list[object]:
    """Return the arguments of `RUN`: for some rules, or for all with or without contrast."""
    options: dict[str, object] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = list(rules)
    if not contrast:
        options["rules"] = {CONTRAST: {"enabled": False}}
    return [WITHOUT_OPTIONS, options]


class Colors:
    """The combinations of colors that axe has seen, by the look of the page."""

    def __init__(self, *, every: bool) -> None:
        self._every = every
        self._seen: dict[str, set[str]] = {}

    def are_new(self, look: str, combinations: list[str]) -> bool:
        """Return whether axe has to check the contrast of a page with these."""
        seen = self._seen.setdefault(look, set())
        new = self._every or not seen.issuperset(combinations)
        seen.update(combinations)
        return new

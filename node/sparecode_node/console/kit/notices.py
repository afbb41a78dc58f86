# SPDX-License-Identifier: Apache-2.0
"""Notices of changes: each travels in a cookie, and the next page shows it once."""

from dataclasses import dataclass
from urllib.parse import urlencode

from sparecode_node.console.kit.forms import Form
from sparecode_node.services.errors import InvalidFieldError

_INDEX_DIGITS_MAX = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The outcome of a change."""

    words: str
    node_id: str = ""
    index: int = 0
    """Log index of the commit; 0 if there is none to show."""
    waiting: bool = False
    """Whether another administrator must approve first, so nothing is done yet (P3)."""

    def to_cookie(self) -> str:
        """Return the notice as the value of a cookie, which only the console can set."""
        fields = {"words": self.words, "node": self.node_id, "index": self.index}
        return urlencode(fields | ({"waiting": 1} if self.waiting else {}))

    @classmethod
    def from_cookie(cls, value: str) -> "Notice | None":
        """Return the notice in a cookie, or None if the value is not a notice."""
        try:
            form = Form.parse(value.encode())
        except InvalidFieldError:
            return None
        index = form.text("index")
        if not (index.isascii() and index.isdigit()) or len(index) > _INDEX_DIGITS_MAX:
            return None
        return cls(
            words=form.text("words"),
            node_id=form.text("node"),
            index=int(index),
            waiting=form.flag("waiting"),
        )

# SPDX-License-Identifier: Apache-2.0
"""What the next page says, once, of what was done: it goes along in a cookie."""

from dataclasses import dataclass
from urllib.parse import urlencode

from sparecode_node.console.kit.forms import Form
from sparecode_node.services.errors import InvalidFieldError

_INDEX_DIGITS_MAX = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What has come of a change."""

    words: str
    node_id: str = ""
    index: int = 0
    """0: nothing was committed that has one."""
    waiting: bool = False
    """It is not done: another administrator has to agree first (P3)."""

    def to_cookie(self) -> str:
        """Return it as the value of a cookie, which only the console can set."""
        said = {"words": self.words, "node": self.node_id, "index": self.index}
        return urlencode(said | ({"waiting": 1} if self.waiting else {}))

    @classmethod
    def from_cookie(cls, value: str) -> "Notice | None":
        """Read such a value; None: it is none."""
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

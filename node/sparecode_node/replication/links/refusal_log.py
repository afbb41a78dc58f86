# SPDX-License-Identifier: Apache-2.0
"""
The log lines about nodes that are refused.

A refused node calls again: it pings every second, and dials its link again. Equal
refusals share a line in each minute, so that they hide no other one and fill no disk.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId

LINE_S = 60.0
"""Between two lines about equal refusals."""

KINDS_MAX = 64
"""
Refusals that are told apart. Who has an authority's key can show any number of keys;
further refusals share a line.
"""


@dataclass(slots=True)
class _Line:
    """The last line about equal refusals."""

    written_s: float
    left_out: int = 0


_Kind = tuple[str, str, str]


class RefusalLog:
    """Writes the first of equal refusals, and then their number once a minute."""

    def __init__(self, log: logging.Logger, now_s: Callable[[], float]) -> None:
        self._log = log
        self._now_s = now_s
        self._lines: dict[_Kind, _Line] = {}

    def write(self, address: str, member: NodeId | str, cause: str, key: str) -> None:
        """Note that a node is refused, which shows *key*; empty: it shows none."""
        now_s = self._now_s()
        kind = self._kind((member, cause, key), now_s)
        line = self._lines.get(kind)
        if line is not None and now_s - line.written_s < LINE_S:
            line.left_out += 1
            return
        again = {"repetitions": line.left_out} if line and line.left_out else {}
        self._lines[kind] = _Line(now_s)
        self._log.warning(
            "stranger_refused",
            extra={
                "peer": address,
                "member": member,
                "cause": cause,
                "key": key,
                **again,
            },
        )

    def _kind(self, kind: _Kind, now_s: float) -> _Kind:
        """Return what counts as equal: with too many kinds, all further ones do."""
        if kind in self._lines:
            return kind
        if len(self._lines) >= KINDS_MAX:
            self._lines = {
                each: line
                for each, line in self._lines.items()
                if now_s - line.written_s < LINE_S
            }
        return kind if len(self._lines) < KINDS_MAX else ("", "", "")

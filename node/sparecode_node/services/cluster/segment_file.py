# SPDX-License-Identifier: Apache-2.0
"""The file with the events of sealed segments, which is replaced when it is damaged (U1)."""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sparecode_node.statemachine.sealed_events import (
    SealedEvents,
    create,
    file_of,
    find_damage,
    is_of_rot,
    put_aside,
)
from sparecode_node.statemachine.segment_chain import SegmentError

log = logging.getLogger(__name__)


class SegmentFile:
    """Lends the file to one thread at a time: for one segment at most, or for a check."""

    def __init__(self, state: Path, on_damaged: Callable[[], object]) -> None:
        """Of the state's database *state*; *on_damaged* is called before a replacement."""
        self._state = state
        self._on_damaged = on_damaged
        self._events: SealedEvents | None = None
        # A thread goes on after its task was cancelled.
        self._working = threading.Lock()
        self._ends = threading.Event()
        self._is_damaged = False
        self.was_replaced = False
        """Readers have the damaged file open, until this is set to false."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[SealedEvents]:
        """
        Lend the file to this thread.

        Raises `SegmentError` after the end, `OSError`, and `sqlite3.Error`. If the error
        shows damage, the file is put aside first.
        """
        with self._working:
            if self._ends.is_set():
                raise SegmentError("the file is closed")
            if self._is_damaged:
                self._replace()  # The disk may have been full when it was found.
            try:
                if self._events is None:
                    self._events = SealedEvents(self._state)
                yield self._events
            except sqlite3.DatabaseError as error:
                # A full disk is no damage. One that cannot be read may be.
                if is_of_rot(error) or not isinstance(error, sqlite3.OperationalError):
                    self._look_for_damage()
                raise

    def check(self) -> bool:
        """
        Read the whole file, and put it aside if it is damaged; return whether it was.

        `close` breaks it off. Raises `OSError` and `sqlite3.Error`.
        """
        with self._working:
            return not self._ends.is_set() and self._look_for_damage()

    def close(self) -> None:
        """Close the file, once its thread has ended."""
        self._ends.set()
        with self._working:
            if self._events is not None:
                self._events.close()

    def _look_for_damage(self) -> bool:
        """Stop counting on a damaged file, and begin another; return whether it was."""
        damage = find_damage(self._state, ends=self._ends.is_set)
        if damage:
            log.error(
                "segments_put_aside",
                extra={"file": str(file_of(self._state)), "cause": damage},
            )
            self._is_damaged = True
            self._on_damaged()
            self._replace()
        return bool(damage)

    def _replace(self) -> None:
        """
        Put the damaged file aside.

        Segments that it still has are proved, and stored in the new one; the others come
        from other members. Raises `OSError` and `sqlite3.Error`.
        """
        if self._events is not None:
            self._events.close()
        self._events = None
        put_aside(self._state)
        create(self._state)
        self._is_damaged, self.was_replaced = False, True

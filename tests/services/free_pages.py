# SPDX-License-Identifier: Apache-2.0
"""A state whose database has free pages, as after an upgrade from release 0.1.0."""

import contextlib
import sqlite3
from pathlib import Path

from sparecode_node.statemachine.tables.schema import read_only_uri
from tests.services.checkpoint_world import create_users, opened

PAGE = 4096
USERS = 30


def prepare(folder: Path, pages: int) -> None:
    """Leave a stopped state in *folder* with some users and at least *pages* free pages."""
    folder.mkdir(exist_ok=True)
    with opened(folder) as world:
        create_users(world, USERS)
    add_free_pages(folder / "state.db", pages)
    with opened(folder) as world:  # It makes the checksums again, and begins a log.
        create_users(world, 1)


def add_free_pages(state: Path, pages: int) -> None:
    """Add at least *pages* free pages to the state of a node that has stopped."""
    with contextlib.closing(sqlite3.connect(state, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("CREATE TABLE discarded (event BLOB)")
        event = (bytes(PAGE - 100),)
        db.executemany("INSERT INTO discarded VALUES (?)", [event] * pages)
        db.execute("COMMIT")
        db.execute("DROP TABLE discarded")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    # The node makes them again, as for a state that another program has written.
    state.with_name(f"{state.name}-pages").unlink()


def pages_of(state: Path) -> tuple[int, int]:
    """Return how many pages a database has, and how many of these are free."""
    with contextlib.closing(sqlite3.connect(read_only_uri(state), uri=True)) as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        (unused,) = db.execute("PRAGMA freelist_count").fetchone()
    return pages, unused

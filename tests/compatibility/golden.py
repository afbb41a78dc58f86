# SPDX-License-Identifier: Apache-2.0
"""
Data folders as releases have left them: testdata/NAME, made once and kept.

    PYTHONPATH=deploy python -m tests.compatibility.golden 0.1.0

runs the release of that name (see baseline.py) through what `live` does, as a cluster
of one, and keeps what is on its disk: key ring, journal, snapshot, state. A golden
folder is never made again: it is what a user of that release has.
"""

import asyncio
import contextlib
import dataclasses
import json
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import NewType

from local_cluster.cluster import LocalCluster
from local_cluster.setup import set_up

from sparecode_client.errors import SparecodeError
from tests.compatibility import baseline
from tests.system.estate import PIN, Estate

OneNode = NewType("OneNode", LocalCluster)
"""A cluster of one: nothing that holds for several nodes is seen there."""

TESTDATA = Path(__file__).parent / "testdata"
ENTRIES_MAX = 36
"""A snapshot is taken after this many entries, so that the rest is replayed."""
REPLAYED_MIN = 10
"""Audit events that must follow the kept snapshot: refusals and re-issues among them."""
RAFT = {"log_entries_max": ENTRIES_MAX, "log_entries_kept": 4}
USERS = 3
CODES = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The origin of a golden folder, and what must be read from it."""

    commit: str
    level: int
    schema: int
    index: int
    digest: str
    audit_sequence: int
    audit_head: str
    spent: dict[str, str]
    """A code that was used, by username."""
    live: dict[str, str]
    """One that was not."""
    password: str
    pin: str = "4711"
    """The PIN of its users; the facts of 0.1.0 do not name it."""

    @classmethod
    def read(cls, folder: Path) -> "Facts":
        """Return the facts of a golden folder."""
        return cls(**json.loads((folder / "facts.json").read_text()))


def one_node(directory: Path, python: str) -> OneNode:
    """Set a cluster of one up, with the software of *python*."""
    return OneNode(set_up(directory, nodes=1, testing=True, raft=RAFT, python=python))


async def live(cluster: LocalCluster) -> tuple[dict[str, str], dict[str, str]]:
    """Do a bit of everything; return a used code and a live one of each user."""
    spent, unspent = {}, {}
    async with Estate(cluster) as estate:
        for number in range(USERS):
            holder = await estate.holder(f"user-{number}", codes=CODES)
            name = holder.username
            for code in holder.codes[:2]:
                answer = await estate.any_agent.authenticate(name, PIN + code)
                assert answer.accepted
            wrong = await estate.any_agent.authenticate(name, "0000" + holder.codes[2])
            assert not wrong.accepted
            spent[name], unspent[name] = holder.codes[0], holder.codes[3]
        await estate.admin.create_user("mallory")
        await estate.admin.delete_user("mallory")
        # Replacing codes, a lock, and refusals. Their words are in the audit log, so a
        # later release must write the same ones when it applies these entries again.
        holder = await estate.holder("again", codes=CODES)
        for _ in range(12):
            await estate.any_agent.authenticate("again", PIN + "00000000000000")
        await estate.admin.issue_tokencodes(holder.serial, count=2)
        for refused in (
            estate.admin.create_user("again"),
            estate.admin.delete_user("again"),
            estate.admin.delete_user("nobody"),
            estate.admin.assign_token(holder.serial, "again"),
            estate.admin.set_pin("unknown", PIN),
            estate.admin.issue_tokencodes("unknown", count=2),
            estate.admin.issue_tokencodes(holder.serial, count=99),
            estate.admin.reinstate_token("unknown"),
        ):
            with contextlib.suppress(SparecodeError):
                await refused
        await estate.admin.disable_emergency_access(holder.serial)
        await estate.admin.issue_tokencodes(holder.serial, count=2)
    return spent, unspent


async def facts_of(cluster: LocalCluster) -> dict[str, int | str]:
    """Return the facts that the node reports about its state."""
    async with Estate(cluster) as estate:
        (member,) = (await estate.admin.get_status(digest=True)).members
    return {
        "index": member.applied_index,
        "digest": member.digest,
        "audit_sequence": member.audit_sequence,
        "audit_head": member.audit_head,
    }


def _require_replay(data: Path, audit_sequence: int) -> None:
    """Refuse a folder whose snapshot holds nearly all events: little is replayed."""
    (snapshot,) = (data / "journal").glob("snapshot.*.*")
    with contextlib.closing(sqlite3.connect(snapshot)) as db:
        (held,) = db.execute("SELECT max(sequence) FROM audit_events").fetchone()
    if audit_sequence - held < REPLAYED_MIN:
        message = f"only {audit_sequence - held} events follow the snapshot: run again"
        raise SystemExit(message)


def make(name: str) -> Path:
    """Make the golden folder of a release."""
    commit = baseline.BASELINES[name]
    release = baseline.build(commit)
    target = TESTDATA / name
    if target.exists():
        message = f"{target} is there, and is never made again"
        raise SystemExit(message)
    with tempfile.TemporaryDirectory() as folder:
        cluster = one_node(Path(folder) / "cluster", release.python)
        (node,) = cluster.nodes
        try:
            cluster.start()
            spent, unspent = asyncio.run(live(cluster))
            facts = asyncio.run(facts_of(cluster))
            assert node.stop() == 0
        finally:
            cluster.kill()
        _require_replay(node.directory / "data", int(facts["audit_sequence"]))
        shutil.copytree(node.directory / "data", target / "data")
        shutil.copy(node.key_ring, target / "keyring.json")
        written = Facts(
            commit=commit,
            level=release.level,
            schema=release.schema,
            spent=spent,
            live=unspent,
            password=cluster.password,
            pin=PIN,
            **facts,  # type: ignore[arg-type]
        )
    text = json.dumps(dataclasses.asdict(written), indent=2) + "\n"
    (target / "facts.json").write_text(text)
    return target


if __name__ == "__main__":
    print(make(sys.argv[1]))  # noqa: T201

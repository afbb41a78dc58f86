# SPDX-License-Identifier: Apache-2.0
"""What the state's file tells the node that opens it."""

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import MemberKey
from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.state.state_file import StateFile
from sparecode_node.services.state.state_process import StateProcesses
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.tables import membership, meta
from tests.services.checkpoint_world import opened

KEY = MemberKey(fingerprint="ab" * 32)


@pytest.mark.parametrize("is_restored", [False, True])
def test_keys_of_members_are_those_of_the_cluster(
    tmp_path: Path, is_restored: bool
) -> None:
    """
    (P5a) The first state of a restored cluster has the keys of the old one's members.

    A node that joins would refuse the restored one, which has a new key, and never get
    the entry that begins the epoch.
    """
    sealing = Sealing(KeyRing.draw(SystemEntropy()))
    followed: list[Mapping[NodeId, MemberKey]] = []
    with contextlib.closing(StateProcesses()) as processes:
        file = StateFile(
            tmp_path / "state.db",
            sealing=sealing,
            clock=SystemClock(),
            processes=processes,
            on_member_keys=followed.append,
        )
        with file.open() as (machine, _):
            assert followed.pop() == {}
            _record(machine, "another" if is_restored else sealing.cluster_id)
            machine.reload()
    assert followed == ([] if is_restored else [{NodeId("n1"): KEY}])


@pytest.mark.parametrize(
    "name", ["state.db-pages.new", "state.db-wal", "state-audit.db"]
)
def test_a_file_that_cannot_be_opened_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node does not start, and its operator reads why."""
    real = os.open

    def fail(path: Any, *more: Any, **named: Any) -> int:
        if Path(os.fsdecode(path)).name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", fail)
    refused = pytest.raises(StartRefusedError, match=f"Input/output error.*{name}")
    with refused, opened(tmp_path):
        pass


def _record(machine: StateMachine, cluster_id: str) -> None:
    """Write what entries of that cluster would have written."""
    membership.save_member_key(machine._db, NodeId("n1"), KEY, 0)
    meta.write(machine._db, "cluster_id", cluster_id)

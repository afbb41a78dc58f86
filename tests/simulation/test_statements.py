# SPDX-License-Identifier: Apache-2.0
"""The statement of one operator skips nothing, and the cluster works once it is gone."""

import contextlib

from sparecode_node.replication.log.skips import Stop
from tests.replication.recording_state import call
from tests.simulation.fault_effects import Effect
from tests.simulation.statements import Folder
from tests.simulation.test_directed import Script


def test_one_statement_skips_nothing() -> None:
    """No machine can apply the entry; one signs, and all have the statement (E3)."""
    with contextlib.closing(Script(7)) as sim, sim.world():
        sim.run_for(3)
        leader = sim.leading()
        before = leader.store.state.applied_index
        sim.statements.signs, sim.statements._poison = True, before + 1
        waiting = sim.propose(leader, "kept", lambda: call("kept"))
        stop: Stop | None = None
        for _ in range(300):
            sim.step(faulty=False)
            stop = stop or sim.statements.folder(leader.node_id).stop
        assert not [o for o in waiting.outcomes if not isinstance(o, Exception)]
        assert stop is not None
        sim.statements._sign(leader.node_id, stop)
        for folder in (sim.statements.folder(each) for each in sim.ids):
            folder.kept = sim.statements.folder(leader.node_id).kept[:1]
        sim.run_for(5)
        states = [node.store.state for node in sim.nodes.values()]
        assert {state.applied_index for state in states} == {before}
        sim.statements.take_back()
        sim.run_for(6)
        assert all("kept" in node.store.applied() for node in sim.nodes.values())
        assert not any(node.store.state.skipped for node in sim.nodes.values())
    assert sim.effects[Effect.POISON]
    assert sim.effects[Effect.SIGNED_ALONE]
    assert sim.invariants.violations == {}


def test_a_folder_keeps_the_stop_until_the_operator_has_seen_it() -> None:
    folder = Folder()
    stop = Stop(index=7, term=1, digest="d", commands="1 X", cause="Y")
    folder.note_stop(stop)
    assert folder.stop == stop
    assert folder.statements() == ()

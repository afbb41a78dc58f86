# SPDX-License-Identifier: Apache-2.0
"""A state that becomes shorter: no kill in between looks like a disk that loses writes."""

from pathlib import Path

from sparecode_node import fault_points
from sparecode_node.fault_points import Point
from sparecode_node.statemachine.snapshots import write_snapshot
from tests.services.checkpoint_world import copy, create_users, opened
from tests.services.free_pages import PAGE, prepare
from tests.services.test_checkpoints import until_durable

FREE = 200


def test_a_node_starts_after_a_kill_while_a_checkpoint_made_its_state_shorter(
    tmp_path: Path,
) -> None:
    """The checkpoint cuts the file before the checksums of the old pages are gone."""
    folder, image = tmp_path / "node", tmp_path / "image"
    prepare(folder, FREE)

    def killed(point: Point) -> None:
        if point is Point.CHECKPOINT_SUMS and not image.exists():
            copy(folder, image)

    with opened(folder) as world:
        write_snapshot(folder / "state.db", tmp_path / "snapshot")
        world.machine.install(str(tmp_path / "snapshot"))
        world.machine.reload()
        before = fault_points.install(killed)
        try:
            create_users(world, 1)
            until_durable(world.machine, world.index)
        finally:
            fault_points.install(before)
        digest = world.machine.digest()
    assert (image / "state.db").stat().st_size < FREE * PAGE
    with opened(image) as world:
        assert world.machine.digest() == digest
        create_users(world, 1)

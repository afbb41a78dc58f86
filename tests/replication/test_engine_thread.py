# SPDX-License-Identifier: Apache-2.0
"""What waits for the engine's thread is bounded."""

from pathlib import Path
from typing import Any, cast

import pytest

from sparecode_node.replication import engine_thread
from sparecode_node.replication.engine_thread import EngineThread


def test_an_engine_that_does_not_keep_up_has_no_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever delivers messages of other members asks, and ends the link."""
    monkeypatch.setattr(engine_thread, "INBOX_MAX", 3)
    not_started = EngineThread(
        cast("Any", None),
        tmp_path,
        open_state=cast("Any", None),
        wire=cast("Any", None),
        wall_ms=lambda: 0,
        on_status=lambda _: None,
        on_fatal=lambda _: None,
    )
    for _ in range(3):
        assert not_started.has_room()
        not_started.post(lambda _: None)
    assert not not_started.has_room()

# SPDX-License-Identifier: Apache-2.0
"""Both kinds of links carry what is compared."""

from pathlib import Path

import pytest
import uvloop
from local_cluster.setup import set_up

from tests.bench.links import KINDS, compare, table
from tests.results import ROOT


def test_either_link_carries_messages_and_acknowledgements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "deploy"))
    cluster = set_up(tmp_path / "cluster")
    seen = uvloop.run(compare(cluster, rounds=2, times=5))
    assert list(seen) == list(KINDS)
    for trips in seen.values():
        assert [each.p50_ms > 0 for each in trips] == [True, True]
    assert table(seen).row_count == 2

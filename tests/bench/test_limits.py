# SPDX-License-Identifier: Apache-2.0
"""The ceilings do what they stand for."""

from pathlib import Path

import pytest
from local_cluster.setup import set_up

from tests.bench.limits import REQUEST_BYTES, bare_commit, call_echo
from tests.results import ROOT


@pytest.mark.parametrize("streams", [False, True])
def test_a_bare_commit_syncs_on_two_machines_before_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, streams: bool
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "deploy"))
    cluster = set_up(tmp_path / "cluster")
    with bare_commit(cluster, tmp_path, streams=streams) as address:
        measured = call_echo(cluster, address, 1, 0.2)
    answered = sum(measured.codes.values())
    assert measured.codes.keys() == {"OK"}
    for name in ("primary", "follower"):
        assert (tmp_path / name).stat().st_size >= answered * REQUEST_BYTES > 0

# SPDX-License-Identifier: Apache-2.0
"""How many cores a process may use, and so how many passcodes it hashes at once (I12)."""

import contextlib
import os
from pathlib import Path

import pytest

from sparecode_node.services.secrets import cores
from sparecode_node.services.secrets.cores import processor_share, usable_cores
from sparecode_node.services.secrets.kdf import TESTING, Kdf, Lane

WAITING_MAX = 64


@pytest.fixture(autouse=True)
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the process eight cores, and a group two folders deep without a quota."""
    own = tmp_path / "cgroup"
    own.write_text("4:cpuset:/other\n0::/system.slice/sparecode.service\n")
    root = tmp_path / "groups"
    (root / "system.slice/sparecode.service").mkdir(parents=True)
    monkeypatch.setattr(cores, "CGROUP", own)
    monkeypatch.setattr(cores, "CGROUPS", root)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return root


def test_without_a_quota_the_affinity_counts(cgroups: Path) -> None:
    assert usable_cores() == 8
    (cgroups / "system.slice/sparecode.service/cpu.max").write_text("max 100000\n")
    assert usable_cores() == 8


@pytest.mark.parametrize(
    ("quota", "found"),
    [
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("290000 100000", 2),
        ("10000 100000", 1),
        ("9900000 100000", 8),
        ("30000 10000", 3),
    ],
)
def test_a_quota_counts_and_a_part_of_a_core_is_left_to_the_rest(
    cgroups: Path, quota: str, found: int
) -> None:
    (cgroups / "system.slice/sparecode.service/cpu.max").write_text(f"{quota}\n")
    assert usable_cores() == found


@pytest.mark.parametrize("above", [".", "system.slice"])
def test_the_smallest_quota_of_the_groups_above_counts(
    cgroups: Path, above: str
) -> None:
    """In a container, the root that it sees is its own group."""
    (cgroups / "system.slice/sparecode.service/cpu.max").write_text("400000 100000\n")
    (cgroups / above / "cpu.max").write_text("300000 100000\n")
    assert usable_cores() == 3


@pytest.mark.parametrize("line", ["0::/", "0::/system.slice"])
def test_a_container_has_the_quota_of_the_group_that_it_sees(
    cgroups: Path, line: str
) -> None:
    """With a namespace of its own, that is the root."""
    cores.CGROUP.write_text(f"{line}\n")
    (cgroups / line.removeprefix("0::/") / "cpu.max").write_text("350000 100000\n")
    assert (usable_cores(), processor_share()) == (3, 3.5)


@pytest.mark.parametrize(
    "content",
    [b"", b"1:cpu:/sparecode.service\n", b"0::/../gone\n", b"0::/\xff\n"],
)
def test_a_process_without_a_group_of_version_2_has_no_quota(
    cgroups: Path, content: bytes
) -> None:
    cores.CGROUP.write_bytes(content)
    (cgroups / "cpu.max").write_text("100000 100000\n")
    assert usable_cores() == 8
    cores.CGROUP.unlink()
    assert usable_cores() == 8


def test_a_pool_has_a_thread_for_each_of_them(cgroups: Path) -> None:
    """Threads beyond a quota let the kernel stop the node for longer, heartbeats and all."""
    (cgroups / "cpu.max").write_text("300000 100000\n")
    with contextlib.closing(Kdf(TESTING, waiting_max=WAITING_MAX)) as kdf:
        assert kdf.load(Lane.AUTHENTICATING).bound == WAITING_MAX + 3
    with contextlib.closing(Kdf(TESTING, workers=5, waiting_max=WAITING_MAX)) as kdf:
        assert kdf.load(Lane.AUTHENTICATING).bound == WAITING_MAX + 5

# SPDX-License-Identifier: Apache-2.0
"""The doctor's findings about a slow, nearly full or read-only disk."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparecode_node.tool.doctor import machine
from sparecode_node.tool.doctor.findings import Finding, Verdict
from sparecode_node.tool.doctor.machine import check_disk

MIB = 1024**2


def disk_finding(data_dir: Path, subject: str) -> Finding:
    (finding,) = (each for each in check_disk(data_dir) if each.subject == subject)
    return finding


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.mark.parametrize(
    ("median_s", "verdict"),
    [
        (0.0099, Verdict.OK),
        (0.0100, Verdict.WARN),
        (0.4999, Verdict.WARN),
        (0.5000, Verdict.FAIL),
    ],
)
def test_slow_disk_is_found(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, median_s: float, verdict: Verdict
) -> None:
    """The median decides: one slow sync of twenty is only mentioned."""
    times = [*([median_s] * 19), 0.9]
    monkeypatch.setattr(machine, "_time_syncs", lambda _path: times)
    finding = disk_finding(data_dir, "disk sync")
    assert finding.verdict is verdict
    assert f"median {median_s * 1000:.1f} ms, slowest of 20 900.0 ms" in finding.words


def test_syncs_are_timed_and_leave_nothing(data_dir: Path) -> None:
    assert "slowest of 20" in disk_finding(data_dir, "disk sync").words
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("free_mib", "verdict"),
    [(1000, Verdict.OK), (999, Verdict.WARN), (16, Verdict.WARN), (15, Verdict.FAIL)],
)
def test_nearly_full_disk_is_found(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, verdict: Verdict
) -> None:
    shown = SimpleNamespace(f_bavail=free_mib, f_frsize=MIB, f_blocks=10_000)
    monkeypatch.setattr(os, "statvfs", lambda _path: shown)
    finding = disk_finding(data_dir, "disk")
    assert finding.verdict is verdict
    assert f"{free_mib:,} MiB of 10,000 MiB are free" in finding.words


def test_read_only_disk_is_found(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_path: Path) -> list[float]:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(machine, "_time_syncs", refused)
    finding = disk_finding(data_dir, "disk sync")
    assert finding.verdict is Verdict.FAIL
    assert "Read-only file system" in finding.words

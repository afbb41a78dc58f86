# SPDX-License-Identifier: Apache-2.0
"""The doctor's finding about how fast this machine hashes."""

import os
import re
import threading
from pathlib import Path

import pytest

from sparecode_node.services.secrets import kdf
from sparecode_node.tool.doctor import hashing
from sparecode_node.tool.doctor.findings import Verdict
from sparecode_node.tool.doctor.hashing import check_hashing


@pytest.fixture(autouse=True)
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that stands for the one of the kernel: a processor with AVX2."""
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu sse2 ssse3 avx2 aes\n")
    monkeypatch.setattr(hashing, "CPUINFO", path)
    monkeypatch.setattr(hashing, "HUGE_PAGES", tmp_path / "transparent_hugepage")
    monkeypatch.setattr(hashing.platform, "machine", lambda: "x86_64")
    return path


def share(monkeypatch: pytest.MonkeyPatch, cores: float) -> None:
    """Let this process use as many cores, or a part of one."""
    monkeypatch.setattr(hashing, "processor_share", lambda: cores)
    monkeypatch.setattr(hashing, "usable_cores", lambda: max(1, int(cores)))


@pytest.mark.parametrize(
    ("cores", "threads", "busy"),
    [(0.1, None, "0.1 core"), (2.5, None, "2 cores"), (2.5, 3, "2.5 cores")],
)
def test_a_part_of_a_core_hashes_a_part_of_the_rate(
    monkeypatch: pytest.MonkeyPatch, cores: float, threads: int | None, busy: str
) -> None:
    share(monkeypatch, cores)
    assert f"with {busy}, " in check_hashing(threads).words


def test_the_rate_and_what_it_bounds_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt costs two hashes (T4); hashes use all cores. Here they are cheap."""

    def cheap(_: object, each: kdf.KdfInput) -> bytes:
        return kdf.hashed(kdf.TESTING, each)

    monkeypatch.setattr(hashing, "hashed", cheap)
    share(monkeypatch, 8)
    finding = check_hashing()
    assert finding.verdict is Verdict.OK
    shown = re.fullmatch(
        r"(\d+) a second on one core now: with 8 cores, (\d+) authentications a second, "
        "or fewer if the cores wait for memory",
        finding.words,
    )
    assert shown is not None, finding.words
    assert int(shown[1]) > 0
    assert int(shown[2]) == pytest.approx(int(shown[1]) * 8 / 2, abs=4)


def test_few_hashes_of_production_are_computed_at_the_lowest_priority(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The users of a running node must not feel it."""
    seen: list[tuple[kdf.Argon2Parameters, int]] = []

    def noting(profile: kdf.Argon2Parameters, each: kdf.KdfInput) -> bytes:
        thread = threading.get_native_id()
        seen.append((profile, os.getpriority(os.PRIO_PROCESS, thread)))
        return kdf.hashed(kdf.TESTING, each)

    monkeypatch.setattr(hashing, "hashed", noting)
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    check_hashing()
    assert 1 <= len(seen) <= 10
    assert set(seen) == {(kdf.PRODUCTION, 19)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == mine


def test_a_machine_without_a_free_core_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]

    def slow(*_: object) -> bytes:
        now[0] += 0.4
        return b""

    monkeypatch.setattr(hashing, "hashed", slow)
    monkeypatch.setattr(hashing.time, "perf_counter", lambda: now[0])
    check_hashing()
    assert now == [0.8]


@pytest.mark.parametrize(
    ("processor", "flags", "verdict"),
    [
        ("x86_64", "flags : sse2 ssse3 avx", Verdict.WARN),
        ("x86_64", "flags : sse2 ssse3 avx avx512f", Verdict.OK),
        ("x86_64", "", Verdict.OK),
        ("aarch64", "Features : asimd", Verdict.OK),
        ("aarch64", "flags : asimd", Verdict.OK),
    ],
)
def test_a_processor_without_wide_vectors_is_warned_of(
    cpuinfo: Path,
    monkeypatch: pytest.MonkeyPatch,
    processor: str,
    flags: str,
    verdict: Verdict,
) -> None:
    cpuinfo.write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(hashing.platform, "machine", lambda: processor)
    finding = check_hashing()
    assert finding.verdict is verdict
    assert ("neither AVX2 nor AVX-512" in finding.words) is (verdict is Verdict.WARN)
    assert "double" not in finding.words


def test_a_hidden_processor_is_not_judged(cpuinfo: Path) -> None:
    cpuinfo.unlink()
    assert check_hashing().verdict is Verdict.OK


@pytest.mark.parametrize(
    ("default", "sizes", "advised"),
    [
        ("always [madvise] never", {}, True),
        ("[always] madvise never", {}, False),
        ("always madvise [never]", {"64kB": "always inherit madvise [never]"}, True),
        ("always [madvise] never", {"64kB": "[always] inherit madvise never"}, False),
        ("always [madvise] never", {"2048kB": "always [inherit] madvise never"}, True),
        ("[always] madvise never", {"2048kB": "always [inherit] madvise never"}, False),
        ("[always] madvise never", {"2048kB": "always inherit madvise [never]"}, True),
        (None, {}, False),
    ],
)
def test_pages_of_4_kib_are_named(
    tmp_path: Path, default: str | None, sizes: dict[str, str], advised: bool
) -> None:
    """Libsodium maps its memory again for each hash, and the kernel fills each page."""
    folder = tmp_path / "transparent_hugepage"
    for size, chosen in sizes.items():
        (folder / f"hugepages-{size}").mkdir(parents=True)
        (folder / f"hugepages-{size}" / "enabled").write_text(f"{chosen}\n")
    if default is not None:
        folder.mkdir(exist_ok=True)
        (folder / "enabled").write_text(f"{default}\n")
    finding = check_hashing()
    assert finding.verdict is Verdict.OK
    assert ('"Huge pages"' in finding.words) is advised


def test_a_machine_without_memory_for_a_hash_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*_: object) -> bytes:
        raise MemoryError("no 19456 KiB for a hash")

    monkeypatch.setattr(hashing, "hashed", failing)
    finding = check_hashing()
    assert finding.verdict is Verdict.FAIL
    assert finding.words.startswith("no 19456 KiB for a hash: no user could")


@pytest.mark.parametrize(
    ("threads", "busy", "verdict"),
    [
        (None, "8 cores", Verdict.OK),
        (1, "1 core", Verdict.OK),
        (8, "8 cores", Verdict.OK),
        (9, "8 cores", Verdict.WARN),
    ],
)
def test_the_threads_of_the_configuration_count(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, busy: str, verdict: Verdict
) -> None:
    share(monkeypatch, 8)
    finding = check_hashing(threads)
    assert f"with {busy}, " in finding.words
    assert finding.verdict is verdict
    named = "names 9 threads in [kdf], but this process may use 8" in finding.words
    assert named is (verdict is Verdict.WARN)

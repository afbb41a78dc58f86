# SPDX-License-Identifier: Apache-2.0
"""
The check of how fast this machine hashes, which limits its authentications (T3, T4).

It measures one core. All cores together may be slower, because each hash reads and writes
19 MiB of memory, and they share its bandwidth.
"""

import contextlib
import os
import platform
import re
import threading
import time
from pathlib import Path

from sparecode_node.services.secrets.cores import processor_share, usable_cores
from sparecode_node.services.secrets.kdf import (
    NICE_MAX,
    PRODUCTION,
    SALT_BYTES,
    KdfInput,
    Secret,
    hashed,
)
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn

HASHES = 10
MOST_S = 0.5
"""No hash begins later, so that a machine without a free core is not waited for."""
HASHES_OF_AN_ATTEMPT = 2
"""Rule T4."""
CPUINFO = Path("/proc/cpuinfo")
WIDE_VECTORS = {"avx2", "avx512f"}
"""Flags of proc(5), of the processors for which libsodium has faster code."""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
"""What the kernel gives to programs that do not ask: Linux, admin-guide/mm/transhuge.rst."""


def check_hashing(threads: int | None = None) -> Finding:
    """
    Measure some hashes of production, whatever profile the node has.

    *threads*: as the configuration says; None: one for each core that this process may use.
    """
    try:
        per_s = _per_core_and_s()
    except MemoryError as error:
        return fail(
            "hashing",
            f"{error}: no user could authenticate; give this machine more memory",
        )
    cores = usable_cores()
    busy = min(processor_share(), threads or cores)
    attempts = per_s * busy / HASHES_OF_AN_ATTEMPT
    words = (
        f"{per_s:.0f} a second on one core now: with {busy:.3g} core{'s' * (busy > 1)}, "
        f"{attempts:.0f} authentications a second, or fewer if the cores wait for memory"
    )
    if threads is not None and threads > cores:
        return warn(
            "hashing",
            f"{words}; node.toml names {threads} threads in [kdf], but this process may "
            f"use {cores} of the machine's cores: name no more than these, because "
            "threads that take turns on a core hash fewer passcodes",
        )
    if _lacks_wide_vectors():
        return warn(
            "hashing",
            f"{words}; the processor has neither AVX2 nor AVX-512, for which hashing has "
            "faster code: if this is a virtual machine, give it the processor model of "
            "its host",
        )
    if _has_small_pages():
        words = (
            f"{words}; hashes get their memory from the kernel in small pages, which "
            'can take half of their time: see docs/performance.md, "Huge pages"'
        )
    return ok("hashing", words)


def _per_core_and_s() -> float:
    """
    Return the hashes in a second of a core. Raises `MemoryError`.

    One thread of the lowest priority computes `HASHES` or fewer, 0.1 to 0.2 s of a core
    in all, so that a running node keeps its cores. Time that it waits for a core does
    not count.
    """
    rates: list[float] = []
    failures: list[MemoryError] = []

    def measure() -> None:
        with contextlib.suppress(OSError):  # A sandbox may refuse it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE_MAX)
        each = KdfInput(secret=Secret.PIN, salt=bytes(SALT_BYTES), text="")
        count, began, began_s = 0, time.perf_counter(), time.thread_time()
        try:
            while count < HASHES and time.perf_counter() - began < MOST_S:
                hashed(PRODUCTION, each)
                count += 1
        except MemoryError as error:
            failures.append(error)
        else:
            rates.append(count / (time.thread_time() - began_s))

    # A thread of its own, because a process cannot raise its priority again.
    thread = threading.Thread(target=measure, name="hashing-check")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return rates[0]


def _lacks_wide_vectors() -> bool:
    """Return whether this is an x86 without them; libsodium has none for others."""
    if platform.machine() != "x86_64":
        return False
    try:
        text = CPUINFO.read_text()
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and not WIDE_VECTORS & set(flags[1].split())


def _has_small_pages() -> bool:
    """Return whether this kernel has larger pages, and gives them only to programs that ask."""
    default = chosen(HUGE_PAGES / "enabled")
    if default is None:
        return False
    # Since Linux 6.8 each size has a setting.
    sizes = [chosen(each) for each in HUGE_PAGES.glob("hugepages-*/enabled")]
    return "always" not in [
        default if each == "inherit" else each for each in sizes or [default]
    ]


def chosen(setting: Path) -> str | None:
    """Return the word in brackets; None: there is no such setting."""
    try:
        found = re.search(r"\[(\w+)\]", setting.read_text())
    except OSError:
        return None
    return found and found[1]

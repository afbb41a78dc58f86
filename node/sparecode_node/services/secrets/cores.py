# SPDX-License-Identifier: Apache-2.0
"""The cores that this process may use: more hashes at once would only be slower."""

import os
from pathlib import Path

CGROUP = Path("/proc/self/cgroup")
"""The line of the process's own group begins with `0::` (cgroups(7), version 2)."""
CGROUPS = Path("/sys/fs/cgroup")
QUOTA = "cpu.max"
"""A quota and a period, both in microseconds; "max": no quota (Linux, admin-guide/cgroup-v2.rst)."""


def usable_cores() -> int:
    """
    Return how many whole cores this process may use at once, at least one.

    A part of a core is left to the rest of the node: threads that use up the quota stop
    the whole process until the next period.
    """
    return max(1, int(processor_share()))


def processor_share() -> float:
    """
    Return how many seconds of processor time this process gets in a second, at most.

    That is the machine's number of cores, or less by the process's affinity or by the
    processor quota of its control group or of one above it, as far as the process sees
    them: `CPUQuota=` of systemd, and the limit of a container.
    """
    cores = len(os.sched_getaffinity(0))
    quotas = [quota for group in _groups() if (quota := _quota(group)) is not None]
    return min([cores, *quotas])


def _groups() -> list[Path]:
    """Return the folders of this process's group and of those above it."""
    try:
        lines = CGROUP.read_text().splitlines()
    except (OSError, ValueError):  # A name of a group need not be UTF-8.
        return []
    own = next((line[len("0::/") :] for line in lines if line.startswith("0::/")), None)
    if own is None or ".." in Path(own).parts:  # A group that this process cannot see.
        return []
    folder = CGROUPS / own
    return [folder, *(each for each in folder.parents if each.is_relative_to(CGROUPS))]


def _quota(group: Path) -> float | None:
    """Return the cores of a group's quota; None: it has no quota."""
    try:
        quota, period = (group / QUOTA).read_text().split()
    except OSError:  # The root has none, nor has a group that does not limit the cores.
        return None
    return None if quota == "max" else int(quota) / int(period)

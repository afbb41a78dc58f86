# SPDX-License-Identifier: Apache-2.0
"""The plans of `make faults`: the campaign, and a series for each kind of fault."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.disks import FILESYSTEMS
from tests.faults.nemesis import FAULTS

DISKS_AND_LINKS = (
    *("wal_error_primary", "wal_error_replica", "wal_error_once"),
    *("slow_sync", "slow_disks", "slow_snapshot"),
    *("disk_went_back_primary", "disk_went_back_replica"),
    *("links_swallow", "links_half_close", "links_corrupt", "links_swallow_and_kill"),
    *("segment_page_rotten", "segment_reads_fail"),
    "starving",
)
POINTS_SERIES = "points"
POINTS = 45
"""Strikes at fault points: most of those to which a campaign leads."""
POWER = ("power_one", "power_primary", "power_all")
CAMPAIGN = "campaign"
GHOSTS = 10
RECORDED_MINUTES = 10.0
"""Shorter campaigns do not go to the results page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The faults of a run, and the file systems of the nodes."""

    name: str
    title: str
    faults: Sequence[str]
    times: int = 0
    """Number of faults, taken in turn. 0: random faults for *minutes*."""
    minutes: float = 0
    ghosts: int = 0
    """Runs of the acknowledged-but-lost scenario, before the faults."""
    filesystems: Sequence[str] = FILESYSTEMS
    recorded: bool = False
    """Whether the run is long enough for the results page."""

    @property
    def planned(self) -> Sequence[str]:
        """Faults that must happen at least once."""
        return self.faults[: self.times or None]

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        if self.name == CAMPAIGN:
            return f"make faults MINUTES={self.minutes:g}"
        return f"make faults SERIES={self.name}"


SERIES = {
    plan.name: plan
    for plan in (
        Plan(
            name="power-ext4",
            title="Power cuts, every node on ext4",
            faults=POWER,
            times=50,
            filesystems=("ext4",),
        ),
        Plan(
            name="power-xfs",
            title="Power cuts, every node on XFS",
            faults=POWER,
            times=50,
            filesystems=("xfs",),
        ),
        Plan(
            name="failover",
            title="Kills of the primary",
            faults=("kill_primary",),
            times=20,
        ),
        Plan(
            name="rolling-restart",
            title="Rolling restarts, as for an upgrade",
            faults=("rolling_restart",),
            times=10,
        ),
        Plan(
            name="disks-and-links",
            title="Bad disks, links that die silently, and a node that starves",
            faults=DISKS_AND_LINKS,
            times=2 * len(DISKS_AND_LINKS),
        ),
        Plan(
            name=POINTS_SERIES,
            title="Fault points of the product",
            faults=("fault_point",),
            times=POINTS,
        ),
        Plan(
            name="ghosts",
            title="Changes at a cut-off primary",
            faults=(),
            ghosts=GHOSTS,
        ),
    )
}


def campaign(minutes: float, faults: Sequence[str], ghosts: int) -> Plan:
    """Return the plan of a campaign."""
    whole = minutes >= RECORDED_MINUTES and set(faults) == set(FAULTS)
    return Plan(
        name=CAMPAIGN,
        title="Random faults of every kind",
        faults=faults,
        minutes=minutes,
        ghosts=ghosts,
        recorded=whole,
    )

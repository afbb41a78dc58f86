# SPDX-License-Identifier: Apache-2.0
"""What one run of `make faults` does: the campaign, or a series of one kind of fault."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.disks import FILESYSTEMS
from tests.faults.nemesis import FAULTS

POWER = ("power_one", "power_primary", "power_all")
CAMPAIGN = "campaign"
GHOSTS = 10
RECORDED_MINUTES = 10.0
"""A shorter campaign does not take the place of a longer one on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done to the nodes, and on what disks they lie."""

    name: str
    title: str
    faults: Sequence[str]
    times: int = 0
    """Of all of them together, in turn; 0: at random for *minutes*."""
    minutes: float = 0
    ghosts: int = 0
    """Runs of the acknowledged-but-lost scenario, before anything else."""
    filesystems: Sequence[str] = FILESYSTEMS
    recorded: bool = False
    """It is long enough for the results page."""

    @property
    def planned(self) -> Sequence[str]:
        """Faults that are to be struck once at least."""
        return self.faults[: self.times or None]

    @property
    def command(self) -> str:
        """How it is run again."""
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
            title="The primary killed",
            faults=("kill_primary",),
            times=20,
        ),
        Plan(
            name="rolling-restart",
            title="One node after the other stopped and started, as for an upgrade",
            faults=("rolling_restart",),
            times=10,
        ),
        Plan(
            name="ghosts",
            title="A cut-off primary is asked for changes",
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
        title="Everything at random",
        faults=faults,
        minutes=minutes,
        ghosts=ghosts,
        recorded=whole,
    )

# SPDX-License-Identifier: Apache-2.0
"""The bounds within which the cluster must recover: deadlines, and lines of the page."""

from tests.faults import (
    archive_strikes,
    disk_strikes,
    link_strikes,
    receiver_strikes,
    return_strikes,
    segment_strikes,
    strikes,
)
from tests.faults.probes import GAP_MAX_S

RUNNING_S = 10.0
"""After a fault that ends no process: until every node serves."""
STARTED_S = 30.0
"""Until every node serves after a fault that ends processes, and their start."""
CAUGHT_UP_S = 60.0
"""
Until a node that starved has applied what was kept for it: up to eight times 600
entries, and what users write meanwhile, while it shares the processors with two nodes
under full load. It applies a hundred entries a second and more.
"""

ENDS_PROCESSES = frozenset(
    {
        *("kill_replica", "kill_primary", "kill_majority", "kill_all"),
        *("power_one", "power_primary", "power_all", "full_disk"),
        *("sync_error_primary", "sync_error_replica"),
        *("wal_error_primary", "wal_error_replica", "wal_error_once"),
        "links_swallow_and_kill",
        *("fault_point", "archive_damaged", "archive_interrupted"),
        "segments_removed",
    }
)
"""Faults after which the nemesis starts nodes."""


def recovery_s(fault: str) -> float:
    """Return how long it may take from the end of a fault until every node serves."""
    if fault == "starving":
        return CAUGHT_UP_S
    return STARTED_S if fault in ENDS_PROCESSES else RUNNING_S


EACH = f"{segment_strikes.EACH_S:.0f} s more for each sealed segment"

OTHERS = {
    "no answer to the prober, while a majority is up and connected": GAP_MAX_S,
    "primary killed: until a survivor answers a later call": strikes.SUCCESS_S,
    "all links died silently: until a later call is answered": link_strikes.LINKS_S,
    "a disk fails or is full: until its node has stopped": disk_strikes.STOPPED_S,
    "start on an older copy: until the node is refused": return_strikes.REFUSED_S,
    f"removed and joined again: until the node votes; {EACH}": return_strikes.JOINED_S,
    "a receiver works again: until a notice is delivered": receiver_strikes.RESUMED_S,
    f"stored segments lost: until the node has them again; {EACH}": segment_strikes.FETCHED_S,
    f"a segment of an archive lost or damaged: until it is there again; {EACH}": (
        archive_strikes.ARCHIVED_S
    ),
    "archived segments due: until no node has their events": archive_strikes.REMOVED_S,
    "snapshot over a fast link: until it is installed": link_strikes.INSTALLED_S,
    "snapshot over a slow link: until it is installed, or twice its bytes by the link's "
    "rate": link_strikes.STARVED_S,
}
"""The other bounds in seconds."""

# SPDX-License-Identifier: Apache-2.0
"""
Change a node for a campaign. Python imports this first if its folder is on the path.

*The clock.* The node takes the time only from `time.time_ns`, which is shifted here by
the number of seconds in a file. A second number there shifts `time.monotonic_ns`, from
which the primary takes the ages of request ids: time passes, instead of a clock that
jumps. libfaketime does not fit: it also shifts the time from which gRPC's core computes
deadlines, but not the kernel that waits for them. So the core waits for minutes where a
real clock jump would not make it wait.

*The audit log* is sealed after as many events as a variable says, if it is set. All
nodes of a cluster need the same number. The policy may then keep events for a second,
in place of 90 days, and a policy that keeps less has effect after two seconds, in place
of three days. Nothing else of retention changes. The product has no such setting: it
would be a way to remove evidence.

*Fault points* of the product act if a variable names a file for them (`armed_points`).
"""

import mmap
import os
import time
from pathlib import Path

# Mapped instead of read: each tick and each call reads the time several times.
with Path(os.environ["SPARECODE_FAULTS_CLOCK"]).open("rb") as _file:
    _OFFSET = mmap.mmap(_file.fileno(), 0, access=mmap.ACCESS_READ)
_true_ns = time.time_ns
_true_monotonic_ns = time.monotonic_ns


def _shifted_ns() -> int:
    return _true_ns() + int(_OFFSET[:15]) * 1_000_000_000


def _shifted_monotonic_ns() -> int:
    return _true_monotonic_ns() + int(_OFFSET[15:]) * 1_000_000_000


time.time_ns = _shifted_ns
time.monotonic_ns = _shifted_monotonic_ns

if _events := os.environ.get("SPARECODE_FAULTS_SEGMENT_EVENTS"):
    from sparecode_node.domain import policy
    from sparecode_node.domain import retention as ages
    from sparecode_node.services.cluster import archive, retention, segments
    from sparecode_node.statemachine import audit

    audit.SEGMENT_EVENTS = int(_events)
    segments.RETRY_S = 1.0
    segments.READ_AGAIN_S = 0.5
    segments.REST = 0.5
    archive.PAUSE_S = 0.5
    archive.RETRY_S = 1.0
    archive.READ_AGAIN_S = 0.5
    archive.REST = 0.5
    retention.LOOK_S = 1.0
    ages.SHORTENING_DELAY_MS = 2_000
    policy.BOUNDS["audit_retention_ms"] = (1_000, 36_600 * policy.DAY_MS)

if "SPARECODE_FAULTS_POINT" in os.environ:
    import armed_points

    armed_points.install()

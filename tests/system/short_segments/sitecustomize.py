# SPDX-License-Identifier: Apache-2.0
"""
Seals the audit log after a few events, so that a short test has many segments.

Python imports this first if its folder is on the path. All nodes of a cluster need it.
SEGMENT_REST is how long a node rests after the work on a segment, compared to that work.
"""

import contextlib
import os

with contextlib.suppress(ImportError):  # An earlier release seals nothing.
    from sparecode_node.services.cluster import segments
    from sparecode_node.statemachine import audit

    audit.SEGMENT_EVENTS = 10
    segments.RETRY_S = 1.0
    segments.READ_AGAIN_S = 0.5
    segments.REST = float(os.environ.get("SEGMENT_REST", "2"))

# SPDX-License-Identifier: Apache-2.0
"""The parts of PySyncObj that are off: `engine` makes each of them stop its caller."""

OFF = (
    # Commands enter by `proposals` only, and the engine never forwards them.
    "_applyCommand",
    # Membership: applied when appended, several changes at once, as pickles.
    "addNodeToCluster",
    "removeNodeFromCluster",
    "_addNodeToCluster",
    "_removeNodeFromCluster",
    "_SyncObj__changeCluster",
    "_SyncObj__doChangeCluster",
    "_SyncObj__updateClusterConfiguration",
    # Snapshots: a partial one moves the commit index over unverified entries.
    "_SyncObj__loadDumpFile",
    "forceLogCompaction",
    "_forceLogCompaction",
    # The target of a transfer campaigns without a check of its term.
    "transferLeadership",
    "_transferLeadership",
    # Code versions travel as pickles.
    "setCodeVersion",
    "_setCodeVersion",
    # Threads of PySyncObj's own.
    "_autoTickThread",
)

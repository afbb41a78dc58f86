# SPDX-License-Identifier: Apache-2.0
"""One replica: the engine's thread, and compaction of its log into snapshots."""

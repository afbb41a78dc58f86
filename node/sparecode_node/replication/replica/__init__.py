# SPDX-License-Identifier: Apache-2.0
"""One replica: engine, log, state and snapshots, put together and driven."""

# SPDX-License-Identifier: Apache-2.0
"""Log entries, snapshots and the traffic between members."""

# SPDX-License-Identifier: Apache-2.0
"""Read-only queries on the state of this node; services pass the read barrier first."""

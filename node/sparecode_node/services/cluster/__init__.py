# SPDX-License-Identifier: Apache-2.0
"""Members, backups, audit log and state of the cluster."""

# SPDX-License-Identifier: Apache-2.0
"""Several clusters that share the users among them: see docs/clusters.md."""

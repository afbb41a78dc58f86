# SPDX-License-Identifier: Apache-2.0
"""The daemon: builds, starts, observes and stops everything that runs in a node."""

# SPDX-License-Identifier: Apache-2.0
"""The read side: read-only SQLite behind the barrier that the services pass first."""

# SPDX-License-Identifier: Apache-2.0
"""Links between nodes: connections, TLS, and the services on both ends."""

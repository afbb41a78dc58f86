# SPDX-License-Identifier: Apache-2.0
"""
How a node becomes a member: as the founder, by a ticket, or from a backup.

The modules write the files that `node.toml` names before the node runs (`init`,
`restore`, `recover`), and let other nodes join while it runs.
"""

# SPDX-License-Identifier: Apache-2.0
"""
How a node gets what makes it a member: from an authority of its own, or by a ticket.

Works on the files that `node.toml` names, before the node runs (`init`), and for
others while it runs.
"""

# SPDX-License-Identifier: Apache-2.0
"""
A node of a Sparecode cluster.

The layers, the highest first; each imports only layers below it (node/DESIGN.md):

    __main__
    tool
    daemon
    membership
    rpc | console
    services
    replication | queries
    statemachine
    domain
"""

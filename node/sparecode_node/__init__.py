# SPDX-License-Identifier: Apache-2.0
"""
A node of a Sparecode cluster.

The layers, from the top; each imports only what is below it:

* `__main__`: the daemon `sparecode-node`
* `bootstrap`, `certificates`: build and start every object; the cluster's keys
* `rpc`: the gRPC edge, which translates and decides nothing
* `services`: use cases; the only place that draws time and randomness
* `replication`, `queries`: writes through the Raft log, reads behind a barrier
* `statemachine`: commands applied to SQLite, the same on every node
* `domain`: the rules, without any input or output
"""

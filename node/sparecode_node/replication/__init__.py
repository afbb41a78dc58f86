# SPDX-License-Identifier: Apache-2.0
"""
Replication of calls by Raft: the only package that knows the engine, PySyncObj.

DESIGN.md says what we take from PySyncObj and what we do not trust it with.
From the inside out:

* `storage`, `journal_format`, `journal_file`, `journal`: the durable log
* `codec`, `frames`: what is in an entry, and in a message between members
* `guard`, `prevote`, `engine`, `sending`: PySyncObj with fences around it
* `handover`: another leader, without the pause of an election
* `read_index`: reads by a quorum's word, without the log
* `snapshots`, `compaction`, `opening`, `snapshot_keeper`: the state as of an index,
  instead of the log up to it
* `proposals`, `replica`, `engine_thread`: one replica, and the thread that owns it
* `tls`, `links`, `transport`: gRPC between members
* `forwarding`, `cluster_changes`, `cluster_replicator`, `loopback`: the `Replicator`s
"""

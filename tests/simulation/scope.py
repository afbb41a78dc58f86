# SPDX-License-Identifier: Apache-2.0
"""What the simulation runs, what it leaves out, and what that could hide: for the page."""

SCOPE = """## What is simulated, and what is not

Four kinds of runs share the engine, the journal and the proposals of the product. None of them has all of a node.

| part of a node | `make sim` | `make sim-disks` | `make sim-nodes` | `make sim-outbox` |
| --- | --- | --- | --- | --- |
| engine, journal, acknowledgements | real | real | real | real |
| journal's disk: lost, torn and dropped bytes, lost names | simulated | simulated | simulated | simulated |
| state machine | real | real | one that only remembers | real |
| SQLite's files: lost and torn sectors, failing calls, kills and power cuts inside checkpoints | no: an earlier commit at most | simulated | no | no: an earlier commit at most |
| checkpoints and checksums of pages | no | real, in steps | no | no |
| disks that rot | no | one machine at a time | no | no |
| machines that return as an older copy, and members that come and go | yes | yes | no | yes |
| queues, read points, links, hand-over between threads | stand-ins | stand-ins | real | stand-ins |
| time inside syncs and applies, suspended processes, half-dead links | no | no | simulated | no |
| channels of notices | no | no | no | real |

What that could hide:

* *Threads.* Checkpoints run between two entries, never beside one. A race of SQLite's connections, or of the thread of the checkpoints with that of the
  engine, is not seen. `tests/services/test_checkpoints.py` and `make faults` have the threads, without a seed.
* *The file of sealed audit events* is opened and created at each start, but nothing is written to it. An error there is not seen.
* *Snapshots that are being written* are taken without a fault, and their files are on the simulated disk of the journal, not on that of the state.
* *A file system* loses and tears only what these models say. Metadata is written in order, a sector is atomic, and reads return what was written while the machine runs:
  bytes that rot are seen at the next start. SQLite's page cache, its shared memory and its locks are those of one process.
* *Orderly stops* do not happen: each process is killed, loses power or stops itself.
* *Two rotten disks at once* in three nodes are more than Raft can survive. They are not drawn, so nothing shows how a cluster would fail then.
* *Other Pythons.* The files are simulated in the SQLite that Python's `sqlite3` links. Where it is linked into Python itself, the tests are skipped.
"""

# SPDX-License-Identifier: Apache-2.0
"""What the simulation runs, what it leaves out, and what that could hide: for the page."""

SCOPE = """## What is simulated, and what is not

`make sim-groups` has [several clusters](groups.md), each as one machine without an engine. Four other kinds of runs share the engine, the journal and the proposals of the product. None of them has all of a node:

* `make sim` has engines with their journals and states, and is fast: thousands of seeds.
* `make sim-disks` adds SQLite's files, on disks that lose, tear and change what was written.
* `make sim-nodes` has whole nodes: links, queues, threads, and time that passes. In two thirds of its runs a majority of the members (the *core*) is left alone
  after a while: faults go on for the other members and their links until the core is judged no more, and the core must go on answering. That is 7 s of simulated time: what
  would stop a core only later is not seen.
* `make sim-outbox` adds channels of notices and their receivers.

`make sim-mixed` has whole nodes for longer: each seed draws its faults, its bounds and its releases, and in half of them the cluster is lost, and a new one begins.
`make sim-lost` is the same for short runs that lose it in any case.

| part of a node | `make sim` | `make sim-disks` | `make sim-nodes` | `make sim-outbox` |
| --- | --- | --- | --- | --- |
| engine, journal, acknowledgements | real | real | real | real |
| journal's disk: lost, torn and dropped bytes, lost names | simulated | simulated | simulated | simulated |
| promises between members, judged when they are made | yes | yes | yes | yes |
| state machine | real | real | real | real |
| SQLite's files: lost and torn sectors, failing calls, kills and power cuts inside checkpoints | no: a power cut takes the state back to an earlier commit | simulated | no, as in `make sim` | no, as in `make sim` |
| checkpoints and checksums of pages | no | real, in steps | no | no |
| disks that rot | no | one machine at a time | no | no |
| members that come and go | yes | yes | in the third of the runs that have no core | yes |
| machines that return as an older copy | yes | yes | in nearly all of the runs with members that come and go | yes |
| leaders that are cut off one after another | in most of the runs about that | the same | no | the same |
| learners that ask for votes | in a third of the runs about members | the same | no | the same |
| statements to skip an entry, of one operator alone | in a fifth of the runs | in a fifth of the runs | no | in a fifth of the runs |
| snapshot keeper: takes, sends, fetches, verifies | real | real | real | real |
| queues, read points, waiting callers, reads by the word of a member | none: callers ask the engine | none | real | none |
| links between nodes | none: messages of engines | none | real, over simulated gRPC | none |
| hand-over between loop and engine | none | none | real jobs and answers, in one thread | none |
| time inside syncs and applies, suspended processes, half-dead links | no | no | simulated | no |
| snapshots that stop on their way, and come too late | in a fifth of the runs | in a fifth of the runs | no | in a fifth of the runs |
| members that were away for too long, and fetch a snapshot while faults go on | in a seventh of the runs | in a seventh of the runs | after a while, when all but the links is in good health | in a seventh of the runs |
| installations that begin late: at a candidate, with something left to apply, or at a member that could win | in a twentieth of the runs of three nodes | in a twentieth of the runs | no | in a twentieth of the runs |
| worker threads that install a snapshot or write a shorter log, while the engine goes on | in these runs | in these runs | yes | in these runs |
| snapshots in turns, in good health | no | no | in a fifth of the runs | no |
| bandwidth of links, and time of disks for a snapshot by its size | no | no | simulated | no |
| channels of notices | no | no | no | real |
| rotation of the key: new seals in batches, retirement | in a quarter of the runs | no | in some runs of `make sim-mixed` | no |
| audit segments: archives, confirmations, removal by retention | in a third of the runs | no | no | no |
| audit segments: what nodes tell, agree on, discard, and take from each other | in another third of the runs | no | no | no |
| a new cluster from a survivor or from a backup | no | no | in half of `make sim-mixed`, and all of `make sim-lost` | no |
| a lost majority on empty disks, or put back together to older copies | no | no | in most of the recoveries of `make sim-lost` | no |
| an engine's thread held up while the loop answers | no | no | in half of `make sim-mixed`; elsewhere as long as its disk takes | no |

What that could hide:

* *Key rotation* has no members that lack a key: every machine has each key as soon as its state names it, and values show their key instead of being
  encrypted (`seals.py`). So nothing here shows how keys reach members, or that a seal is bound to its row. `tests/services` and `tests/system` have both, without a seed.
* *Archives and retention.* The state machine decides what is removed, as in the product. The background work of a node (`SegmentArchive`, `Retention`) is not in it:
  the simulation proposes confirmations and removals, and retention keeps events for 0.1 s instead of months. A segment
  has 12 events instead of 10,000, so that a short run seals many. An archive is a file of sealed events
  that survives the disk of its node, not a folder; some nodes share one. Its id may be lost, or be another's, but none that it had before comes back.
  Confirmations by administrators, segments that were declared lost, and the pause after a recovery are not in it.
  `tests/services` and `tests/statemachine` have all of them, without a seed.
* *Agreement about audit segments.* The decisions are the product's (`segment_plan.py`), and so are the proof of a segment and the command that tells of it. The tasks
  around them (`SegmentKeeper`, `SegmentHolders`) are not in it, nor is the exchange between members: a sender is another machine's file, or forges one event. In the other
  runs nodes discard what the files of all machines have. Members are removed by the engine alone, so nothing here shows that a removal waits for copies.
  `tests/services/test_segment_copies.py`, `tests/services/test_segment_fetch.py` and `tests/statemachine/test_segment_holders.py` have these, without a seed.
* *`recover` and restore* write the new log by the product's code. Files that are moved into place, key rings, bundles and the signatures of backups
  are not in it, and nothing fails meanwhile. `tests/system/test_runbooks.py` and `tests/test_recovery_tool.py` have them, without a seed.
* *Older copies of a majority* meet a survivor from the start, which was a member when they were made. Among themselves, or if all members go back together, nothing on their
  disks shows it. They would go on without what was acknowledged since, until a survivor meets them. The [runbook](../runbooks/restored-machine.md) says what is to be started last.
* *Machines that have lost something*: wiped, rotten, or put back to an older copy. What such a machine had voted and acknowledged before its return is not expected any more. So it is not judged
  what a leader has counted of it before, until the term of that leader ends, nor a vote that contradicts one from before. A refusal of such a machine is not judged either, whatever its reason.
  All that it says after its return is judged as that of any other member.
  The administrator removes no voter while another one may have to be replaced: of three, two would be left, and one of them may not come back.
* *A copy beside the original.* An older copy of a machine takes its place; the two never run at once. `tests/replication/test_rollback.py` has both, without a seed.
* *Records that the disk has not got yet.* Before a machine is put back to an older copy, the small files of the others (`raft.boots`) are
  written to the disk, as kernels do within half a minute. What a machine knows less than that is not drawn there; power cuts alone take it away.
* *Promises of the last second* before a power cut, lost by a disk that rots. The leader alone may have heard of an acknowledgement, and no member of what a leader has counted of its own log.
  Where another member does not know of them, the disk is replaced at once, so nothing shows what a cluster does that goes on: it may lose what only this disk and one other had.
* *Lost ends of journals that look like an installation that a crash broke off*: the newest snapshot is of the entry that was applied last. The node starts, and no judge expects that it refuses.
  What it has lost of its promises must be known to the others, as in any other run.
* *Skipped entries.* No majority signs, so no entry is skipped, and the tool that signs on a stopped node is not in it: the product verifies statements and counts the
  voters. `tests/replication/test_skips.py` and `tests/system/test_poison_entry.py` skip entries, without a seed.
* *Crowds and older releases* are in `make sim-mixed` alone, whose runs are few. An older release is today's code that tells of the first feature level only: it reads whatever it is sent.
  So a member that could not read an entry does not stop there. The log is judged instead: until the level is raised, each call in it is in words of that release, and it is raised when no member is left that knows no more. `make packages-test` upgrades release 0.1.0 itself.
* *Threads.* The loop of the engine's thread, and how other threads wake it, are replaced by steps (`nodes/engines.py`). Checkpoints run between two entries, never beside one. A step publishes its status after all of its messages. A race of SQLite's connections, or of the thread of the checkpoints with that of the
  engine, is not seen. `tests/services/test_checkpoints.py` and `make faults` have the threads, without a seed.
* *The file of sealed audit events* is opened and created at each start, but nothing is written to it. An error there is not seen.
* *Installations* begin nearly always at a follower that has applied all that it knows to be committed. They begin at a candidate, or with something left to apply, in about
  one of sixty runs of `make sim`, a few of `make sim-outbox`, hardly any of `make sim-disks`, and none of five nodes or of whole nodes. `tests/replication/test_compaction.py` has both, without a seed.
* *Snapshots that are being written* are taken without a fault, and their files are on the simulated disk of the journal, not on that of the state.
* *A file system* loses and tears only what these models say. Metadata is written in order, a sector is atomic, and reads return what was written while the machine runs:
  bytes that rot are seen at the next start. Whether a file is there, its size and its locks are asked without a failure. SQLite's page cache, its shared memory and its locks are those of one process.
* *Single packets* are not lost: links are TCP, which sends them again. A link delays its messages, holds them back, swallows everything from some moment on in one direction or in
  both, or breaks, and then some of what was on its way is lost. In `make sim` messages also arrive twice or out of order. How TCP slows down as packets get lost is seen as delays alone.
* *Orderly stops* do not happen: each process is killed, loses power or stops itself.
* *Disks that are lost before the journals have their names* are not drawn: then all members must agree, and the cluster may wait for an operator. The
  specification ([model checker](model.md)) and `tests/replication/test_guard.py` look at it.
* *Two rotten disks at once* in three nodes are more than Raft can survive. They are not drawn, so nothing shows how a cluster would fail then.
* *Other Pythons.* The files are simulated in the SQLite that Python's `sqlite3` links. Where it is linked into Python itself, the tests are skipped.
"""

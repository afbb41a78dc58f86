---------------------------- MODULE Replication ----------------------------
(* SPDX-License-Identifier: Apache-2.0                                       *)
(*                                                                           *)
(* What Sparecode adds to the Raft of PySyncObj, and what this must keep:    *)
(* nothing acknowledged is lost, and no term has two leaders.                *)
(*                                                                           *)
(* Messages are facts that never go away: whoever may receive one, may       *)
(* receive it late, again, in any order, or never. So the network needs no   *)
(* variables. A leader's log only grows in its term, so "entries sent in     *)
(* term t" are the log of that leader, `sent[t]`.                            *)
(*                                                                           *)
(* Any node may campaign at any time. That includes election timeouts, the   *)
(* pre-vote, which only makes campaigns rarer, and handing over, which       *)
(* leaves the pre-vote out.                                                  *)
(*                                                                           *)
(* A machine that is no voter receives and acknowledges entries like one:    *)
(* that is a learner. `Add` makes it a voter. An entry that adds a learner,  *)
(* or has the name of its journal, changes no voters: only `Trace` has it.   *)
(*                                                                           *)
(* A node may also adopt a newer term, step down, or sync and acknowledge    *)
(* nothing. That is no action here: such a node does less than before, and   *)
(* whatever it may do after that, a node that goes on may do as well. There  *)
(* is one exception: a node that has adopted a term may `Confirm` a read of  *)
(* this term. But a read's term has a leader, and `Receive(n, leader, 0, 0)` *)
(* makes the same node. So these actions add states and no danger. `Trace`   *)
(* has them.                                                                 *)
(*                                                                           *)
(* `Broken` names the protections that are taken out: a run with one of them *)
(* must violate an invariant, else the model does not see it.                *)
(*                                                                           *)
(* Not here: compaction and snapshots (a prefix of the log in another form), *)
(* disks that go back in time (what the others know of them is younger than  *)
(* a second only as a rule, so it is no invariant), clocks, and progress.    *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
    Nodes,      \* All machines, members or not.
    Founders,   \* The voters of the first configuration.
    Named,      \* Whether that configuration names their journals.
    MaxTerm, MaxLog, MaxCrashes, MaxWipes, MaxChanges, MaxReads,
    Broken      \* The protections that are taken out, by name.

Kept(protection) == protection \notin Broken

(* Without crashes, nobody can tell when something reached a disk: then the disks stay unused, *)
(* and an acknowledgement leaves with its entry.                                               *)
AtOnce == MaxCrashes = 0

None == 0
Terms == 1..MaxTerm
Max(a, b) == IF a > b THEN a ELSE b
Min(a, b) == IF a < b THEN a ELSE b

VARIABLES
    term, vote, log,            \* In memory, for each node.
    diskTerm, diskVote, disk,   \* On its disk.
    life,       \* The journal of a node: a wiped node begins another one.
    role,       \* "follower", "candidate" or "leader".
    commit,     \* How far a node knows the log to be committed.
    held,       \* Acknowledgements of a node that wait for its sync.
    votes, acks, sent, told, leads,    \* Facts.
    ledger,     \* Everything ever committed, each entry with the term of the committing leader.
    split,      \* Two nodes have committed different entries at one index.
    crashes, wiped, changes, reads

memory == <<term, vote, log>>
durable == <<diskTerm, diskVote, disk>>
facts == <<votes, acks, sent, told, leads>>
history == <<ledger, split>>
bounds == <<crashes, wiped, changes>>
vars == <<memory, durable, life, role, commit, held, facts, history, bounds, reads>>

---------------------------------------------------------------------------
(* Configurations: the newest one in a log counts, committed or not.         *)

First == [voters |-> Founders, names |-> [n \in Nodes |-> IF Named THEN 1 ELSE None], removed |-> {}]

ConfiguredAt(entries) ==
    LET at == {i \in 1..Len(entries) : entries[i].kind = "members"}
    IN IF at = {} THEN 0 ELSE CHOOSE i \in at : \A j \in at : j <= i

Configuration(entries) ==
    IF ConfiguredAt(entries) = 0 THEN First ELSE entries[ConfiguredAt(entries)].members

Voters(n) == Configuration(log[n]).voters
IsQuorum(some, voters) ==
    2 * Cardinality(IF Kept("only voters are counted") THEN some \cap voters ELSE some) > Cardinality(voters)
IsNamed(members) == \A v \in members.voters : members.names[v] # None

(* Whether n refuses what m said in one of its lives. *)
Refuses(n, m, itsLife) ==
    /\ Kept("lost journals are refused")
    /\ Configuration(log[n]).names[m] \notin {None, itsLife}

LastTerm(entries) == IF entries = <<>> THEN 0 ELSE entries[Len(entries)].term
IsComplete(lastTerm, length, entries) ==
    \/ lastTerm > LastTerm(entries)
    \/ lastTerm = LastTerm(entries) /\ length >= Len(entries)

---------------------------------------------------------------------------
Init ==
    /\ term = [n \in Nodes |-> 0] /\ vote = [n \in Nodes |-> None]
    /\ log = [n \in Nodes |-> <<>>]
    /\ diskTerm = term /\ diskVote = vote /\ disk = log
    /\ life = [n \in Nodes |-> 1]
    /\ role = [n \in Nodes |-> "follower"]
    /\ commit = [n \in Nodes |-> 0]
    /\ held = [n \in Nodes |-> {}]
    /\ votes = {} /\ acks = {} /\ leads = {}
    /\ sent = [t \in Terms |-> <<>>] /\ told = [t \in Terms |-> 0]
    /\ ledger = <<>> /\ split = FALSE
    /\ crashes = 0 /\ wiped = {} /\ changes = 0 /\ reads = {}

(* Write everything in memory to the disk of n, after a change to these values. *)
OnDisk(n, newTerm, newVote, newLog) ==
    IF AtOnce THEN UNCHANGED durable ELSE
    /\ diskTerm' = [diskTerm EXCEPT ![n] = newTerm]
    /\ diskVote' = [diskVote EXCEPT ![n] = newVote]
    /\ disk' = [disk EXCEPT ![n] = newLog]

(* Every node syncs before it takes a higher commit index. So a leader, which counts itself, has *)
(* the entries on its disk by then, and what a state has applied is in the log after a crash.    *)
SyncToCommit(n, index, newTerm, newVote, newLog) ==
    LET isThere == Len(disk[n]) >= index /\ SubSeq(disk[n], 1, index) = SubSeq(newLog, 1, index)
    IN IF isThere \/ ~Kept("a leader counts itself after its sync") THEN UNCHANGED durable
       ELSE OnDisk(n, newTerm, newVote, newLog)

---------------------------------------------------------------------------
(* Elections *)

(* A node whose own log names another journal for it has lost its earlier votes. It may have *)
(* heard of newer terms before it campaigns, and may have led until then.                    *)
Campaign(n) ==
    /\ n \in Voters(n)
    /\ ~Refuses(n, n, life[n]) \/ ~Kept("a node without its journal does not campaign")
    /\ \E known \in {term[m] : m \in Nodes} :
        known >= term[n] /\ known < MaxTerm /\ term' = [term EXCEPT ![n] = known + 1]
    /\ vote' = [vote EXCEPT ![n] = n]
    /\ role' = [role EXCEPT ![n] = "candidate"]
    /\ IF Kept("sync before voting") THEN OnDisk(n, term'[n], n, log[n]) ELSE UNCHANGED durable
    /\ UNCHANGED <<log, life, commit, held, votes, acks, sent, told, leads, history,
                   bounds, reads>>

(* n votes for m. A vote that arrives after m has moved on changes nothing, so none is cast then. *)
Vote(n, m) ==
    /\ m # n /\ role[m] = "candidate" /\ term[m] >= term[n]
    /\ ~Refuses(n, m, life[m])
    /\ term[m] > term[n] \/ vote[n] = None \/ ~Kept("one vote in a term")
    /\ IsComplete(LastTerm(log[m]), Len(log[m]), log[n]) \/ ~Kept("votes for complete logs only")
    /\ LET cast == [term |-> term[m], by |-> n, byLife |-> life[n], to |-> m, toLife |-> life[m]]
       IN cast \notin votes /\ votes' = votes \cup {cast}
    /\ term' = [term EXCEPT ![n] = term[m]]
    /\ vote' = [vote EXCEPT ![n] = m]
    /\ role' = [role EXCEPT ![n] = "follower"]
    /\ IF Kept("sync before voting") THEN OnDisk(n, term[m], m, log[n]) ELSE UNCHANGED durable
    /\ UNCHANGED <<log, life, commit, held, acks, sent, told, leads, history, bounds, reads>>

Supporters(n) ==
    {n} \cup {v \in Nodes : \E each \in votes :
        /\ each.by = v /\ each.to = n /\ each.toLife = life[n] /\ each.term = term[n]
        /\ ~Refuses(n, v, each.byLife)}

Lead(n) ==
    /\ role[n] = "candidate" /\ IsQuorum(Supporters(n), Voters(n))
    /\ \/ IsNamed(Configuration(log[n]))
       \/ Voters(n) \subseteq Supporters(n)
       \/ ~Kept("the first election needs every voter")
    /\ Len(log[n]) < MaxLog
    /\ role' = [role EXCEPT ![n] = "leader"]
    /\ log' = [log EXCEPT ![n] = Append(@, [term |-> term[n], kind |-> "no-op"])]
    /\ sent' = [sent EXCEPT ![term[n]] = log'[n]]
    /\ told' = [told EXCEPT ![term[n]] = commit[n]]
    /\ leads' = leads \cup {[term |-> term[n], by |-> n, byLife |-> life[n]]}
    /\ UNCHANGED <<term, vote, durable, life, commit, held, votes, acks, history,
                   bounds, reads>>

---------------------------------------------------------------------------
(* Entries *)

Leads(n) == role[n] = "leader"
KnowsCommit(n) == commit[n] > 0 /\ log[n][commit[n]].term = term[n]

AppendAs(n, entry) ==
    /\ Leads(n) /\ Len(log[n]) < MaxLog
    /\ log' = [log EXCEPT ![n] = Append(@, entry)]
    /\ sent' = [sent EXCEPT ![term[n]] = log'[n]]

(* A call of an agent or administrator. *)
Propose(n) ==
    /\ KnowsCommit(n)
    /\ AppendAs(n, [term |-> term[n], kind |-> "call"])
    /\ UNCHANGED <<term, vote, durable, life, role, commit, held, votes, acks,
                   told, leads, history, bounds, reads>>

(* The furthest acknowledgement of each term covers the earlier ones. *)
Furthest(some) == {a \in some : \A b \in some : b.term = a.term => b.index <= a.index}

Acknowledged(n, some) ==
    LET all == acks \cup {[term |-> a.term, index |-> a.index, by |-> n, byLife |-> life[n]] : a \in some}
    IN {a \in all : \A b \in all :
            (b.term = a.term /\ b.by = a.by /\ b.byLife = a.byLife) => b.index <= a.index}

(* n receives a part of what the leader of term t has sent: at most one entry, after *previous*. *)
Receive(n, leader, previous, count) ==
    LET t == leader.term
        entries == sent[t]
        entry == entries[previous + 1]
        fits == IF previous = 0 THEN TRUE
                ELSE previous <= Len(log[n]) /\ log[n][previous].term = entries[previous].term
        isKnown == /\ count = 0 \/ (Len(log[n]) > previous /\ log[n][previous + 1].term = entry.term)
                   /\ Kept("only conflicting entries are cut off")
        before == SubSeq(log[n], 1, previous)
        newLog == IF isKnown THEN log[n] ELSE IF count = 0 THEN before ELSE Append(before, entry)
        confirmed == previous + count
        newVote == IF t > term[n] THEN None ELSE vote[n]
        latest == Max(commit[n], Min(told[t], confirmed))
    IN  /\ leader.by # n /\ t >= term[n] /\ ~(t = term[n] /\ Leads(n))
        /\ ~Refuses(n, leader.by, leader.byLife)
        /\ confirmed <= Len(entries)
        /\ fits
        /\ confirmed > 0 \/ t > term[n]
        /\ term' = [term EXCEPT ![n] = t]
        /\ vote' = [vote EXCEPT ![n] = newVote]
        /\ role' = [role EXCEPT ![n] = "follower"]
        /\ log' = [log EXCEPT ![n] = newLog]
        /\ LET ack == [term |-> t, index |->
                   IF Kept("acknowledge what the message confirms") THEN confirmed ELSE Len(newLog)]
           IN IF AtOnce
              THEN acks' = Acknowledged(n, {ack}) /\ UNCHANGED held
              ELSE held' = [held EXCEPT ![n] = Furthest(@ \cup {ack})] /\ UNCHANGED acks
        \* The message may be from before the leader knew the entry to be committed.
        /\ \E known \in {latest} \cup (IF AtOnce THEN {} ELSE {commit[n]}) :
            /\ commit' = [commit EXCEPT ![n] = known]
            /\ IF known > commit[n] THEN SyncToCommit(n, known, t, newVote, newLog) ELSE UNCHANGED durable
    /\ UNCHANGED <<life, votes, sent, told, leads, history, bounds, reads>>

(* One sync for everything received, and the acknowledgements after it. *)
Sync(n) ==
    /\ ~AtOnce
    /\ <<term[n], vote[n], log[n], held[n]>> # <<diskTerm[n], diskVote[n], disk[n], {}>>
    /\ OnDisk(n, term[n], vote[n], log[n])
    /\ acks' = Acknowledged(n, held[n])
    /\ held' = [held EXCEPT ![n] = {}]
    /\ UNCHANGED <<memory, life, role, commit, votes, sent, told, leads, history, bounds, reads>>

AcknowledgeEarly(n) ==
    /\ ~Kept("sync before acknowledging") /\ held[n] # {}
    /\ acks' = Acknowledged(n, held[n])
    /\ held' = [held EXCEPT ![n] = {}]
    /\ UNCHANGED <<memory, durable, life, role, commit, votes, sent, told, leads, history, bounds,
                   reads>>

(* The followers that a leader counts for an entry. A name that was written after an                                    *)
(* acknowledgement had been counted does not take it back.                                                             *)
Counted(n, index) ==
    {m \in Nodes \ {n} : \E ack \in acks :
        /\ ack.by = m /\ ack.index >= index
        /\ ack.term = term[n] \/ ~Kept("acknowledgements count in their term")
        /\ ~Refuses(n, m, ack.byLife) \/ ack.byLife < Configuration(log[n]).names[m]}

Agrees(shorter, longer) == \A i \in 1..Len(shorter) : shorter[i] = longer[i].entry

Commit(n, index) ==
    /\ Leads(n) /\ index > commit[n] /\ index <= Len(log[n])
    /\ log[n][index].term = term[n] \/ ~Kept("commit entries of the own term")
    /\ IsQuorum({n} \cup Counted(n, index), Voters(n))
    /\ commit' = [commit EXCEPT ![n] = index]
    /\ told' = [told EXCEPT ![term[n]] = Max(@, index)]
    /\ LET known == Min(index, Len(ledger))
           more == [i \in 1..(index - known) |-> [entry |-> log[n][known + i], by |-> term[n]]]
       IN /\ split' = (split \/ ~Agrees(SubSeq(log[n], 1, known), ledger))
          /\ ledger' = ledger \o more
    /\ SyncToCommit(n, index, term[n], vote[n], log[n])
    /\ UNCHANGED <<memory, life, role, held, votes, acks, sent, leads,
                   bounds, reads>>

---------------------------------------------------------------------------
(* Members: one change at a time, and after an entry of the own term (Ongaro's amendment of  *)
(* 2015 to 4.1 of his thesis): then no earlier leader can win by a change of its own that is *)
(* not committed.                                                                            *)

MayChange(n) ==
    /\ Leads(n)
    /\ KnowsCommit(n) \/ ~Kept("members change after an entry of the own term")
    /\ ConfiguredAt(log[n]) <= commit[n] \/ ~Kept("one change at a time")

AppendMembers(n, members) ==
    /\ AppendAs(n, [term |-> term[n], kind |-> "members", members |-> members])
    /\ UNCHANGED <<term, vote, durable, life, role, commit, held, votes, acks,
                   told, leads, history, crashes, wiped, reads>>

(* The names of the journals, as they were heard: a node may have been wiped since. *)
Name(n) ==
    /\ MayChange(n) /\ ~IsNamed(Configuration(log[n]))
    /\ \E wipedSince \in SUBSET wiped :
        LET now == Configuration(log[n])
            heard(v) == IF v \in wipedSince THEN 1 ELSE life[v]
        IN AppendMembers(n, [now EXCEPT !.names =
               [v \in Nodes |-> IF v \in now.voters /\ @[v] = None THEN heard(v) ELSE @[v]]])
    /\ UNCHANGED changes

(* The learner may have been wiped since it has shown its journal. *)
Add(n, m) ==
    /\ MayChange(n) /\ changes < MaxChanges
    /\ LET now == Configuration(log[n])
       IN /\ IsNamed(now) /\ m \notin now.voters
          /\ m \notin now.removed
          /\ \E heard \in 1..life[m] :
                AppendMembers(n, [now EXCEPT !.voters = @ \cup {m}, !.names[m] = heard])
    /\ changes' = changes + 1

(* Remove a voter, or a learner. *)
Remove(n, m) ==
    /\ MayChange(n) /\ changes < MaxChanges
    /\ LET now == Configuration(log[n])
       IN /\ IsNamed(now) /\ m # n /\ m \notin now.removed
          /\ AppendMembers(n, [now EXCEPT !.voters = @ \ {m}, !.names[m] = None,
                                          !.removed = @ \cup {m}])
    /\ changes' = changes + 1

---------------------------------------------------------------------------
(* Reads: a quorum confirms, after the read began, that it knows of no newer term. *)

Read(n) ==
    /\ Leads(n) /\ Cardinality(reads) < MaxReads
    /\ KnowsCommit(n) \/ ~Kept("reads wait for an entry of the own term")
    /\ reads' = reads \cup {[id |-> Cardinality(reads), by |-> n, term |-> term[n], point |-> commit[n],
                             must |-> Len(ledger), confirmed |-> {}, answered |-> FALSE]}
    /\ UNCHANGED <<memory, durable, life, role, commit, held, facts, history, bounds>>

Confirm(m, read) ==
    /\ ~read.answered /\ m # read.by /\ m \notin read.confirmed
    /\ term[m] = read.term \/ ~Kept("a member confirms its own term only")
    /\ reads' = (reads \ {read}) \cup {[read EXCEPT !.confirmed = @ \cup {m}]}
    /\ UNCHANGED <<memory, durable, life, role, commit, held, facts, history, bounds>>

Answer(read) ==
    /\ ~read.answered /\ Leads(read.by) /\ term[read.by] = read.term
    /\ \/ IsQuorum({read.by} \cup read.confirmed, Voters(read.by))
       \/ ~Kept("a quorum confirms reads")
    /\ reads' = (reads \ {read}) \cup {[read EXCEPT !.answered = TRUE]}
    /\ UNCHANGED <<memory, durable, life, role, commit, held, facts, history, bounds>>

---------------------------------------------------------------------------
(* Faults *)

(* A kill or a power cut: a batch of the journal is on disk or not at all. What the *)
(* state has applied is known to be committed; the power may have taken the end of it. *)
Crash(n) ==
    /\ crashes < MaxCrashes /\ crashes' = crashes + 1
    /\ term' = [term EXCEPT ![n] = diskTerm[n]]
    /\ vote' = [vote EXCEPT ![n] = diskVote[n]]
    /\ log' = [log EXCEPT ![n] = disk[n]]
    /\ role' = [role EXCEPT ![n] = "follower"]
    /\ \E known \in 0..Min(commit[n], Len(disk[n])) : commit' = [commit EXCEPT ![n] = known]
    /\ held' = [held EXCEPT ![n] = {}]
    /\ UNCHANGED <<durable, life, facts, history, wiped, changes, reads>>

(* A node comes back without its disk. A majority that is wiped has lost everything. *)
Wipe(n) ==
    /\ n \notin wiped /\ Cardinality(wiped) < MaxWipes /\ wiped' = wiped \cup {n}
    /\ life' = [life EXCEPT ![n] = @ + 1]
    /\ term' = [term EXCEPT ![n] = 0] /\ vote' = [vote EXCEPT ![n] = None]
    /\ log' = [log EXCEPT ![n] = <<>>] /\ OnDisk(n, 0, None, <<>>)
    /\ role' = [role EXCEPT ![n] = "follower"]
    /\ commit' = [commit EXCEPT ![n] = 0]
    /\ held' = [held EXCEPT ![n] = {}]
    /\ UNCHANGED <<facts, history, crashes, changes, reads>>

---------------------------------------------------------------------------
Next ==
    \E n \in Nodes :
        \/ Campaign(n)
        \/ \E m \in Nodes : Vote(n, m)
        \/ Lead(n)
        \/ Propose(n)
        \/ \E leader \in leads, previous \in 0..MaxLog, count \in 0..1 :
            previous <= Len(sent[leader.term]) /\ Receive(n, leader, previous, count)
        \/ Sync(n) \/ AcknowledgeEarly(n)
        \/ \E index \in 1..MaxLog : Commit(n, index)
        \/ Name(n)
        \/ \E m \in Nodes : Add(n, m) \/ Remove(n, m)
        \/ Read(n)
        \/ \E read \in reads : Confirm(n, read) \/ Answer(read)
        \/ Crash(n) \/ Wipe(n)

Spec == Init /\ [][Next]_vars

Symmetry == Permutations(Nodes \ Founders) \cup Permutations(Founders)

(* A bound for runs with a protection taken out, in which elections and proposals are enough. *)
NothingArrives == acks = {} /\ \A n \in Nodes : held[n] = {}

---------------------------------------------------------------------------
(* Invariants *)

OneLeaderATerm == \A a, b \in leads : a.term = b.term => a = b

NoSplit == ~split

(* A leader has every call that was committed by a leader of an earlier term. *)
LeadersHaveAll ==
    \A n \in Nodes : Leads(n) => \A i \in 1..Len(ledger) :
        (ledger[i].by < term[n] /\ ledger[i].entry.kind = "call") =>
            (i <= Len(log[n]) /\ log[n][i] = ledger[i].entry)

(* What a node knows as committed is what was committed. *)
CommittedIsAgreed ==
    \A n \in Nodes : \A i \in 1..commit[n] :
        i <= Len(ledger) /\ i <= Len(log[n]) /\ log[n][i] = ledger[i].entry

(* What is acknowledged in a term stays on disk while that term lasts. *)
AcknowledgedIsOnDisk ==
    \A a \in acks : LET n == a.by IN
        IF AtOnce
        THEN (a.byLife = life[n] /\ a.term = term[n]) => a.index <= Len(log[n])
        ELSE (a.byLife = life[n] /\ a.term = diskTerm[n]) => a.index <= Len(disk[n])

OneVoteATerm ==
    \A a, b \in votes : (a.term = b.term /\ a.by = b.by /\ a.byLife = b.byLife) => a = b

ReadsSeeEverything == \A read \in reads : read.answered => read.point >= read.must
=============================================================================

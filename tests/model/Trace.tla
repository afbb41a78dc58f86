------------------------------- MODULE Trace -------------------------------
(* SPDX-License-Identifier: Apache-2.0                                       *)
(*                                                                           *)
(* Whether `Replication` allows what real nodes have done in a simulation.   *)
(*                                                                           *)
(* `Steps` is what one node after the other has become: its term, vote, log, *)
(* role, the acknowledgements that wait for a sync, and what is on its disk. *)
(* Each step must be some actions of that node, one after another; which,    *)
(* the checker finds. A restart stands where the node died, with its disk    *)
(* or without. What the network has carried is not in a step: an action that *)
(* needs a vote or an acknowledgement finds it only if an earlier step has   *)
(* made it.                                                                  *)
(*                                                                           *)
(* A node may know less of what is committed than `Replication` lets it:     *)
(* that is safe. Knowing more is not, and is refused.                        *)
EXTENDS Replication

CONSTANTS
    Steps,      \* What was recorded; see `traces.py`.
    Last        \* The number of steps.

VARIABLES
    at,         \* How many steps are explained.
    inner,      \* How many actions explain the next one so far.
    asked       \* Candidates, as they asked for votes: a request may arrive late.

traceVars == <<vars, at, inner, asked>>

(* How far n has acknowledged the log of a term. *)
Acked(n, t, some) ==
    LET indices == {a.index : a \in {a \in some : a.by = n /\ a.byLife = life[n] /\ a.term = t}}
    IN IF indices = {} THEN 0 ELSE CHOOSE i \in indices : \A j \in indices : j <= i

(* Whether the node of a step is as the step says, from these values of its variables. *)
Fits(step, itsTerm, itsVote, itsLog, itsRole, itsCommit, itsHeld, allAcks, itsDisk, itsDiskTerm, itsDiskVote) ==
    LET acked == Acked(step.node, step.term, allAcks) IN
    /\ itsTerm = step.term /\ itsVote = step.vote
    /\ itsLog = step.log /\ itsRole = step.role
    /\ itsCommit = step.commit
    /\ itsDisk = step.disk /\ itsDiskTerm = step.diskTerm /\ itsDiskVote = step.diskVote
    /\ acked = step.acked
    /\ \A a \in step.held : a.term = step.term =>
        (acked >= a.index \/ \E b \in itsHeld : b.term = a.term /\ b.index >= a.index)

IsNow(step) ==
    LET n == step.node
    IN Fits(step, term[n], vote[n], log[n], role[n], commit[n], held[n], acks,
            disk[n], diskTerm[n], diskVote[n])

Becomes(step) ==
    LET n == step.node
    IN Fits(step, term'[n], vote'[n], log'[n], role'[n], commit'[n], held'[n], acks',
            disk'[n], diskTerm'[n], diskVote'[n])

IsPrefix(shorter, longer) == Len(shorter) <= Len(longer) /\ shorter = SubSeq(longer, 1, Len(shorter))

(* A step is one tick or one message, so it has one term and one vote. *)
HasOneTerm(step) ==
    LET n == step.node IN
    /\ term'[n] \in {term[n], step.term}
    /\ \/ vote'[n] = vote[n]
       \/ term'[n] = step.term /\ vote'[n] \in {None, step.vote}

(* The checker need not go on from here: the node cannot become what the step says. *)
LeadsTo(step) ==
    LET n == step.node IN
    /\ HasOneTerm(step)
    /\ log'[n] = log[n] \/ IsPrefix(log'[n], step.log)
    /\ Acked(n, step.term, acks') <= step.acked
    /\ \/ held'[n] \subseteq held[n] \cup step.held
       \/ log'[n] # log[n]

(* n hears of a newer term in which it votes for nobody, or not yet. Each term has had a  *)
(* candidate, and a node may hear of it after all that knew of it have lost their disks.  *)
AdoptTerm(n) ==
    /\ \E known \in {term[m] : m \in Nodes} \cup {request.term : request \in asked} :
        known > term[n] /\ term' = [term EXCEPT ![n] = known]
    /\ vote' = [vote EXCEPT ![n] = None]
    /\ role' = [role EXCEPT ![n] = "follower"]
    /\ UNCHANGED <<durable, log, life, commit, held, facts, history, bounds, reads>>

(* n has heard no quorum for too long, or its clock is wrong. *)
StepDown(n) ==
    /\ role[n] # "follower"
    /\ role' = [role EXCEPT ![n] = "follower"]
    /\ UNCHANGED <<term, vote, log, durable, life, commit, held, facts, history, bounds, reads>>

(* The acknowledgements follow later, or never. *)
SyncAlone(n) ==
    /\ OnDisk(n, term[n], vote[n], log[n])
    /\ UNCHANGED <<memory, life, role, commit, held, facts, history, bounds, reads>>

(* The voters stay: a learner joins, or learners get the names of their journals, as they *)
(* were heard. The members count as before.                                               *)
Learn(n) ==
    /\ MayChange(n) /\ IsNamed(Configuration(log[n]))
    /\ LET now == Configuration(log[n])
           unnamed == {m \in Nodes \ (now.voters \cup now.removed) : now.names[m] = None}
       IN \E heard \in SUBSET unnamed, wipedSince \in SUBSET wiped :
            AppendMembers(n, [now EXCEPT !.names = [m \in Nodes |->
                IF m \notin heard THEN @[m] ELSE IF m \in wipedSince THEN 1 ELSE life[m]]])
    /\ UNCHANGED changes

(* A message with an earlier commit index has come, and this one not yet. *)
KnowsLess(step) ==
    LET n == step.node IN
    /\ commit[n] > step.commit
    /\ commit' = [commit EXCEPT ![n] = step.commit]
    /\ UNCHANGED <<memory, durable, life, role, held, facts, history, bounds, reads>>

(* The answer to a request for a vote that the candidate no longer waits for. *)
LateVote(n) ==
    \E request \in asked :
        LET m == request.by IN
        /\ m # n /\ request.term >= term[n]
        /\ ~(role[m] = "candidate" /\ term[m] = request.term)
        /\ ~Refuses(n, m, request.byLife)
        /\ request.term > term[n] \/ vote[n] = None
        /\ IsComplete(request.lastTerm, request.length, log[n])
        /\ term' = [term EXCEPT ![n] = request.term]
        /\ vote' = [vote EXCEPT ![n] = m]
        /\ role' = [role EXCEPT ![n] = "follower"]
        /\ OnDisk(n, request.term, m, log[n])
        /\ UNCHANGED <<log, life, commit, held, facts, history, bounds, reads>>

Asked(n) ==
    [by |-> n, byLife |-> life[n], term |-> term'[n], lastTerm |-> LastTerm(log[n]), length |-> Len(log[n])]

Action(step) ==
    LET n == step.node IN
    \/ Campaign(n) /\ asked' = asked \cup {Asked(n)}
    \/ /\ UNCHANGED asked
       /\ \/ \E m \in Nodes : Vote(n, m)
          \/ LateVote(n)
          \/ AdoptTerm(n)
          \/ StepDown(n)
          \/ Lead(n)
          \/ Propose(n)
          \/ \E leader \in leads, previous \in 0..Len(step.log), count \in 0..1 :
                previous <= Len(sent[leader.term]) /\ Receive(n, leader, previous, count)
          \/ Sync(n)
          \/ SyncAlone(n)
          \/ KnowsLess(step)
          \/ \E index \in 1..Len(step.log) : Commit(n, index)
          \/ /\ Len(log[n]) < Len(step.log) /\ step.log[Len(log[n]) + 1].kind = "members"
             /\ \/ Name(n)
                \/ Learn(n)
                \/ \E m \in Nodes : Add(n, m) \/ Remove(n, m)

Explain(step) ==
    \/ /\ IsNow(step) /\ UNCHANGED <<vars, asked>>
       /\ at' = at + 1 /\ inner' = 0
    \/ /\ ~IsNow(step) /\ inner < step.most
       /\ Action(step) /\ LeadsTo(step) /\ vars' # vars
       /\ IF Becomes(step) THEN at' = at + 1 /\ inner' = 0 ELSE at' = at /\ inner' = inner + 1

(* After a crash now, the node can be as the step says. *)
IsLeft(step) ==
    LET n == step.node IN
    /\ disk[n] = step.log /\ diskTerm[n] = step.term /\ diskVote[n] = step.vote
    /\ commit[n] >= step.commit

(* A node may die inside a step, after actions that are seen on its disk alone. Each message *)
(* that it sends is a step of its own, so nobody else has seen anything of these actions.    *)
Restart(step) ==
    LET n == step.node IN
    IF IsLeft(step)
    THEN /\ Crash(n) /\ Becomes(step)
         /\ UNCHANGED asked
         /\ at' = at + 1 /\ inner' = 0
    ELSE /\ inner < step.most
         /\ Action(step) /\ vars' # vars
         /\ HasOneTerm(step)
         /\ log'[n] = log[n] \/ IsPrefix(log'[n], step.log)
         /\ Acked(n, step.term, acks') <= step.acked
         /\ at' = at /\ inner' = inner + 1

(* A disk is lost between two steps of its node, which begins another journal. *)
Lose(step) ==
    /\ Wipe(step.node) /\ Becomes(step)
    /\ UNCHANGED asked
    /\ at' = at + 1 /\ inner' = 0

TraceInit == Init /\ at = 0 /\ inner = 0 /\ asked = {}

TraceNext ==
    /\ at < Last
    /\ LET step == Steps[at + 1] IN
        CASE step.kind = "change" -> Explain(step)
          [] step.kind = "restart" -> Restart(step)
          [] step.kind = "wiped" -> Lose(step)
    /\ at' = at \/ PrintT(<<"explained", at'>>)

TraceSpec == TraceInit /\ [][TraceNext]_traceVars

(* Fewer actions come first, so how many there were does not matter. *)
Known == <<vars, at, asked>>

(* Violated when everything is explained: that ends the search. *)
NotExplained == at < Last
=============================================================================

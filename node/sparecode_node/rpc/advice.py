# SPDX-License-Identifier: Apache-2.0
"""What to do next about a refusal whose words say only what it is."""

from collections.abc import Mapping

from sparecode_node.domain.outcomes import Reason

ADVICE: Mapping[Reason, str] = {
    Reason.ROLE: "ask an administrator who may",
    Reason.TOKEN_DISABLED: "enable it first",
    Reason.TOKEN_EXPIRED: "give the user another token",
    Reason.USER_DISABLED: "enable the user first",
    Reason.USER_HAS_TOKENS: "take them away first",
    Reason.APPROVAL_STALE: "have it asked for again",
    Reason.KEY_NOT_HELD: "nothing was changed; see to that node, then try again",
    Reason.KEY_REPLACED: "ask again to see how far it has got",
    Reason.APPROVALS_FULL: "have some of them decided first",
    Reason.REVIEW_STALE: "`sparecode cluster review`",
    Reason.MEMBER_EXISTS: "a machine that has lost its data comes back under a new "
    "node id",
    Reason.TICKETS_FULL: "wait until the oldest is forgotten, 75 minutes after it was "
    "made",
    Reason.TICKET_UNKNOWN: "have a new one made: sparecode cluster ticket",
    Reason.JOINER_CERTIFICATE: "bring one that the members' authority has signed for "
    "this node id, with an EC key",
    Reason.AUTHORITY_MISSING: "ask a member that has the authority's key, or bring a "
    "certificate along",
    Reason.TICKET_USED: "have a new one made: sparecode cluster ticket",
    Reason.TICKET_ENDED: "have a new one made: sparecode cluster ticket",
}

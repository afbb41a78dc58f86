# SPDX-License-Identifier: Apache-2.0
"""Who counts in a configuration, by rules of the simulation's own."""

from sparecode_node.replication.members import Configuration, MemberRole


def voters_of(members: Configuration) -> frozenset[str]:
    """Return the voters."""
    return frozenset(
        each.node_id for each in members.members if each.role is MemberRole.VOTER
    )


def roles_of(members: Configuration) -> dict[str, MemberRole]:
    """Return who is a member, and how: names and addresses may change at any time."""
    return {str(each.node_id): each.role for each in members.members}


def is_named(members: Configuration) -> bool:
    """Return whether the journals of all voters are known."""
    voters = voters_of(members)
    return all(each.journal_id for each in members.members if each.node_id in voters)


def needed(members: Configuration) -> int:
    """Return how many voters must agree: all of them until the journals have names."""
    count = len(voters_of(members))
    return count // 2 + 1 if is_named(members) else count

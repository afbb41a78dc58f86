# SPDX-License-Identifier: Apache-2.0
"""Authentication agents."""

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.users import fold
from sparecode_node.queries import pages
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import AgentView, Page


async def page(
    transaction: ReadTransaction, *, size: int, page_token: str
) -> Page[AgentView]:
    """Return a page of agents in the order of their folded names."""
    rows = await transaction.all(
        """
        SELECT name, identity, protects, enabled FROM agents
        WHERE name_key > :after ORDER BY name_key LIMIT :rows
        """,
        after=pages.decode(page_token),
        rows=size + 1,
    )
    found = [
        AgentView(
            name=row["name"],
            identity=row["identity"],
            protects=Protects(row["protects"]),
            enabled=bool(row["enabled"]),
        )
        for row in rows
    ]
    return pages.page(found, size, lambda agent: fold(agent.name))

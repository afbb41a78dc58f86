# SPDX-License-Identifier: Apache-2.0
"""Agents and the deny list of certificates."""

import sqlite3
from dataclasses import replace

from sparecode_node.domain.agents import Certificate, CertificateMark, Protects
from sparecode_node.domain.etags import AGENT, etag
from sparecode_node.domain.ids import NameKey
from sparecode_node.domain.users import fold
from sparecode_node.queries import agent_keys, pages, radius
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import AgentView, DeniedCertificateView, Page

_COLUMNS = """
    name, identity, protects, enabled, restricted,
    (SELECT count(*) FROM agent_users WHERE agent_users.identity = agents.identity)
        AS allowed
"""


async def get(
    transaction: ReadTransaction, name_key: NameKey, now_ms: int
) -> AgentView | None:
    """Return the agent with this folded name, and its allow list."""
    row = await transaction.one(
        f"SELECT {_COLUMNS} FROM agents WHERE name_key = :name_key",
        name_key=name_key,
    )
    if row is None:
        return None
    allowed = await transaction.all(
        """
        SELECT username FROM agent_users JOIN users USING (user_id)
        WHERE identity = :identity ORDER BY name_key
        """,
        identity=row["identity"],
    )
    usernames = tuple(each["username"] for each in allowed)
    return await _view(transaction, row, now_ms, usernames)


async def page(
    transaction: ReadTransaction, now_ms: int, *, size: int, page_token: str
) -> Page[AgentView]:
    """Return a page of agents, ordered by folded name."""
    rows = await transaction.all(
        f"""
        SELECT {_COLUMNS} FROM agents
        WHERE name_key > :after ORDER BY name_key LIMIT :rows
        """,
        after=pages.decode(page_token),
        rows=size + 1,
    )
    views = [await _view(transaction, row, now_ms) for row in rows]
    return pages.page(views, size, lambda agent: fold(agent.name))


async def name_of(transaction: ReadTransaction, identity: str) -> str:
    """Return the name of the agent with this identity; empty: there is none."""
    row = await transaction.one(
        "SELECT name FROM agents WHERE identity = :identity", identity=identity
    )
    return "" if row is None else str(row["name"])


async def admits(
    transaction: ReadTransaction,
    identity: str,
    *,
    certificate: Certificate,
    radius_secret_id: str,
    bearer_id: str,
    user_id: str,
    now_ms: int,
) -> bool:
    """
    Return whether an agent may sign a user in at all, as apply would decide now (A4).

    *radius_secret_id*: the secret that a RADIUS client has used. *bearer_id*: the key
    that an agent has shown; empty: none.
    """
    row = await transaction.one(
        """
        SELECT 1 FROM agents JOIN users ON user_id = :user_id
        WHERE identity = :identity AND agents.enabled AND users.enabled
            AND (NOT restricted
                OR EXISTS (SELECT 1 FROM agent_users
                    WHERE identity = :identity AND user_id = :user_id)
                OR EXISTS (SELECT 1 FROM agent_groups JOIN user_groups USING (group_key)
                    WHERE identity = :identity AND user_id = :user_id))
            AND (NOT EXISTS (SELECT 1 FROM radius_clients WHERE identity = :identity)
                OR EXISTS (SELECT 1 FROM radius_secrets
                    WHERE secret_id = :secret_id AND identity = :identity
                        AND (ends_at_ms IS NULL OR ends_at_ms > :now_ms)))
            AND (:bearer_id = ''
                OR EXISTS (SELECT 1 FROM agent_keys
                    WHERE bearer_id = :bearer_id AND identity = :identity
                        AND (ends_at_ms IS NULL OR ends_at_ms > :now_ms)))
        """,
        identity=identity,
        user_id=user_id,
        secret_id=radius_secret_id,
        bearer_id=bearer_id,
        now_ms=now_ms,
    )
    return row is not None and not await certificate_denied(transaction, certificate)


async def certificate_denied(
    transaction: ReadTransaction, certificate: Certificate
) -> bool:
    """Return whether a certificate is denied by one of its marks."""
    row = await transaction.one(
        """
        SELECT 1 FROM denied_certificates
        WHERE (mark = :by_fingerprint AND value = :fingerprint)
            OR (mark = :by_serial_number AND value = :serial_number)
        """,
        by_fingerprint=CertificateMark.FINGERPRINT,
        fingerprint=certificate.fingerprint,
        by_serial_number=CertificateMark.SERIAL_NUMBER,
        serial_number=certificate.serial_number,
    )
    return row is not None


async def denied_certificates(
    transaction: ReadTransaction, *, size: int, page_token: str
) -> Page[DeniedCertificateView]:
    """Return a page of the deny list, ordered by mark and value."""
    rows = await transaction.all(
        """
        SELECT mark, value, denied_at_ms, denied_by, note FROM denied_certificates
        WHERE mark || ' ' || value > :after ORDER BY mark || ' ' || value LIMIT :rows
        """,
        after=pages.decode(page_token),
        rows=size + 1,
    )
    views = [
        DeniedCertificateView(
            mark=CertificateMark(row["mark"]),
            value=row["value"],
            denied_at_ms=row["denied_at_ms"],
            administrator=row["denied_by"],
            note=row["note"],
        )
        for row in rows
    ]
    return pages.page(views, size, lambda each: f"{each.mark} {each.value}")


async def _view(
    transaction: ReadTransaction,
    row: sqlite3.Row,
    now_ms: int,
    allowed: tuple[str, ...] = (),
) -> AgentView:
    groups = await transaction.all(
        "SELECT group_key FROM agent_groups WHERE identity = :identity "
        "ORDER BY group_key",
        identity=row["identity"],
    )
    facts = await radius.facts_of(transaction, row["identity"], now_ms)
    view = AgentView(
        name=row["name"],
        identity=row["identity"],
        protects=Protects(row["protects"]),
        enabled=bool(row["enabled"]),
        restricted=bool(row["restricted"]),
        allowed_user_count=row["allowed"],
        allowed_usernames=allowed,
        allowed_groups=tuple(str(each["group_key"]) for each in groups),
        accept_attributes=await radius.attributes_of(transaction, row["identity"]),
        radius=facts.settings if facts else None,
        secret_created_at_ms=facts.secret_created_at_ms if facts else None,
        former_secret_ends_at_ms=facts.former_secret_ends_at_ms if facts else None,
        keys=await agent_keys.facts_of(transaction, row["identity"], now_ms),
    )
    return replace(
        view,
        etag=etag(view, AGENT, view.accept_attributes),
        radius_etag=etag(view.radius, (), view.radius),
    )

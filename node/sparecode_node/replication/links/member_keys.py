# SPDX-License-Identifier: Apache-2.0
"""
The public key that each member must show, beside its certificate (P5a).

A certificate names a member, and who has an authority's key can make one for any member:
a removed machine may have it. So a member is known by its key, which the state records.
A node that has not read the state yet, and a member that has not told its key, are known
by the certificate alone.
"""

from collections.abc import Callable, Iterable, Mapping

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import MemberKey
from sparecode_node.replication.members import key_in

AuthContext = Mapping[str, Iterable[bytes]]
_CERTIFICATE = "x509_pem_cert"


class MemberKeys:
    """
    The keys of members: by the state, and by this node's operator.

    The engine's thread and the loop write them, and all threads read them.
    """

    def __init__(self, permitted: Mapping[str, str] | None = None) -> None:
        self.permitted = permitted or {}
        """The keys that this node's operator lets members show, too, by node id."""
        self._recorded: Mapping[NodeId, MemberKey] = {}
        self.on_change: Callable[[], object] | None = None
        """Called after each change, perhaps in the engine's thread."""

    def follow(self, recorded: Mapping[NodeId, MemberKey]) -> None:
        """Take the keys that the state has recorded. Called in the engine's thread."""
        self._recorded = recorded
        self._tell()

    def permit(self, permitted: Mapping[str, str]) -> None:
        """Let members show these keys, too, and no others that were permitted earlier."""
        self.permitted = permitted
        self._tell()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def recorded(self, node_id: NodeId) -> MemberKey | None:
        """Return the key of a member by the state, None if there is none."""
        return self._recorded.get(node_id)

    def accepts(self, node_id: NodeId, fingerprint: str) -> bool:
        """Return whether a member may show this key; empty: a call that shows none."""
        recorded = self._recorded.get(node_id)
        return (
            recorded is None
            or recorded.accepts(fingerprint)
            or self.permitted.get(node_id) == fingerprint
        )


def key_shown(auth_context: AuthContext) -> str:
    """Return the fingerprint of the key in a caller's certificate; empty: it shows none."""
    return key_in(next(iter(auth_context.get(_CERTIFICATE, ())), b""))

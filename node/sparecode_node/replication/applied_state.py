# SPDX-License-Identifier: Apache-2.0
"""What replication needs of the state machine."""

from collections.abc import Mapping
from typing import Protocol

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import MemberKey
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.skipping import SkippedEntry


class AppliedState(Protocol):
    """The state machine, as far as the engine knows it."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry that the state holds."""

    @property
    def now_ms(self) -> int:
        """The state machine's time: the time of the newest call that it has applied."""

    @property
    def feature_level(self) -> int:
        """The feature level of the cluster, which all members know."""

    @property
    def skipped(self) -> tuple[SkippedEntry, ...]:
        """The entries that were skipped, oldest first (E3)."""

    @property
    def member_keys(self) -> Mapping[NodeId, MemberKey]:
        """The public keys that members may show (P5a)."""

    def checkpoint(self) -> int:
        """
        Return the index that no power cut takes the state back before; 0: unknown.

        If that is not the applied one, a checkpoint begins or has been tried.
        """

    def check(self) -> None:
        """Raise `Fatal` if the state on disk can no longer be relied on. Cheap."""

    def install(self, snapshot: str) -> None:
        """
        Replace what is stored by the file *snapshot*, durably, completely or not at all.

        In any thread. Nothing is applied meanwhile, and `reload` follows.
        """

    def reload(self) -> None:
        """Go on in the state that `install` has stored."""

    def apply(self, index: int, calls: tuple[Call, ...]) -> tuple[Result, ...]:
        """Apply an entry in one transaction; without calls, only its index."""

    def skip(self, entry: SkippedEntry, calls: tuple[Call, ...]) -> tuple[Result, ...]:
        """Apply an entry as refused, in one transaction: the operators skip it (E3)."""

    def denies(self, certificate: Certificate) -> bool:
        """Return whether a certificate is on the deny list."""

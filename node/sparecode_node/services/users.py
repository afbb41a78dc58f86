# SPDX-License-Identifier: Apache-2.0
"""Use cases: the people who authenticate."""

from sparecode_node.queries.views import Page, UserView
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.services.sealing import Sealing
from sparecode_node.statemachine.results import Applied


class Users:
    """
    Manages users. Usernames are equal after NFKC and case folding.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` (`USER_UNKNOWN` and the like) and
    `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        sealing: Sealing,
        entropy: Entropy,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._sealing = sealing
        self._entropy = entropy

    async def create(
        self, context: CallContext, *, username: str, display_name: str, email: str
    ) -> Applied:
        """Add a user."""
        raise NotImplementedError

    async def get(
        self, context: CallContext, username: str, *, stale_ok: bool = False
    ) -> Read[UserView]:
        """Return one user."""
        raise NotImplementedError

    async def list(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        username_prefix: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[UserView]]:
        """Return a page of users in the order of their names."""
        raise NotImplementedError

    async def update(
        self,
        context: CallContext,
        *,
        username: str,
        display_name: str | None = None,
        email: str | None = None,
        enabled: bool | None = None,
    ) -> Applied:
        """Change what is given of a user; what is None stays."""
        raise NotImplementedError

    async def delete(self, context: CallContext, *, username: str) -> Applied:
        """Delete a user who has no token."""
        raise NotImplementedError

    async def unlock(self, context: CallContext, *, username: str) -> Applied:
        """Set the failure counts of both factors to zero (L6)."""
        raise NotImplementedError

# SPDX-License-Identifier: Apache-2.0
"""
Keys of the key ring, sent between members (P5).

They travel only over the channels of members, whose mutual TLS keeps them secret and
proves both identities. This module does not know what a key is used for.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import KeyId, NodeId
from sparecode_node.domain.keys import KeyInUse
from sparecode_node.replication.answers import answered, stub_of
from sparecode_node.replication.links.tls import PeerTls, target_name

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class KeyNotHeldError(Exception):
    """A member does not hold a key that was sent to it; the attempt changed nothing."""

    def __init__(self, node_id: NodeId, cause: str) -> None:
        super().__init__(f"{node_id} does not hold the new key: {cause}")
        self.node_id = node_id


class CannotHoldError(Exception):
    """This node cannot write a key to its ring; the message gives the reason, not the key."""


class KeyRingAccess(Protocol):
    """Answers other members' requests about keys, on this node."""

    async def hold(self, key: bytes, *, replaces: KeyId) -> bytes:
        """
        Store a key that may become active, durably; return its fingerprint.

        Raises `CannotHoldError`.
        """

    def lend(self, wanted: KeyInUse) -> bytes | None:
        """Return a key that another member lacks, if this node has it."""


class NoKeys:
    """A node without keys, for tests of replication alone."""

    async def hold(self, key: bytes, *, replaces: KeyId) -> bytes:  # noqa: ARG002
        """Refuse."""
        raise CannotHoldError("this node has no key ring")

    def lend(self, wanted: KeyInUse) -> bytes | None:  # noqa: ARG002
        """Return nothing."""
        return None


class KeyExchange:
    """This node's side: its requests to others, and its answers to them."""

    def __init__(self, holder: KeyRingAccess) -> None:
        self._holder = holder
        self._channel: Callable[[NodeId], grpc.aio.Channel | None] = lambda _: None
        self._others: Callable[[], Iterable[NodeId]] = tuple

    def connect(
        self,
        *,
        channel: Callable[[NodeId], grpc.aio.Channel | None],
        others: Callable[[], Iterable[NodeId]],
    ) -> None:
        """Set how the other members are reached; until then there are none."""
        self._channel = channel
        self._others = others

    @property
    def others(self) -> tuple[NodeId, ...]:
        """The other voters: all of them must hold a key before it becomes active."""
        return tuple(sorted(self._others()))

    async def hand_to(
        self,
        node_id: NodeId,
        key: bytes,
        *,
        replaces: KeyId,
        fingerprint: bytes,
        timeout_s: float,
    ) -> None:
        """
        Make another member hold a key. Raises `KeyNotHeldError`.

        A node that has just started may serve calls before its channels to the others
        are connected, so this waits for the channel. A channel that waits is not an
        error.
        """
        channel = self._channel(node_id)
        if channel is None:
            raise KeyNotHeldError(node_id, "there is no channel to it")
        request = peers_pb2.HoldKeyRequest(key=key, replaces=replaces)
        try:
            answer = await answered(
                stub_of(channel).HoldKey(
                    request, timeout=timeout_s, wait_for_ready=True
                )
            )
        except grpc.aio.AioRpcError as error:
            cause = (
                error.details()
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION
                else f"it did not answer ({error.code().name})"
            )
            raise KeyNotHeldError(node_id, cause or "it gave no reason") from error
        if answer.fingerprint != fingerprint:
            raise KeyNotHeldError(node_id, "its key ring is that of another cluster")

    async def fetch(self, wanted: KeyInUse, *, timeout_s: float) -> bytes | None:
        """Return a key that this node lacks, from any other member that has it."""
        for peer in self.others:
            channel = self._channel(peer)
            key = None if channel is None else await _ask(channel, wanted, timeout_s)
            if key is not None:
                return key
        return None

    async def hold(
        self, request: peers_pb2.HoldKeyRequest
    ) -> peers_pb2.HoldKeyResponse:
        """Hold a key for another member. Raises `CannotHoldError`."""
        fingerprint = await self._holder.hold(
            request.key, replaces=KeyId(request.replaces)
        )
        return peers_pb2.HoldKeyResponse(fingerprint=fingerprint)

    def lend(self, request: peers_pb2.FetchKeyRequest) -> peers_pb2.FetchKeyResponse:
        """Return a key that another member lacks; empty: this node lacks it, too."""
        wanted = KeyInUse(key_id=KeyId(request.key_id), fingerprint=request.fingerprint)
        return peers_pb2.FetchKeyResponse(key=self._holder.lend(wanted) or b"")


class KeyCalls:
    """The calls of `PeerService` about keys; `PeerServicer` adds the checks of callers."""

    _keys: KeyExchange

    async def _member(self, context: Context) -> NodeId:
        """Return the calling member, which need not have a link yet."""
        raise NotImplementedError

    async def _caller(self, context: Context) -> NodeId:
        """Return the calling member, which has a link."""
        raise NotImplementedError

    async def HoldKey(
        self, request: peers_pb2.HoldKeyRequest, context: Context
    ) -> peers_pb2.HoldKeyResponse:
        """Hold a key of the ring that another member has drawn."""
        peer = await self._caller(context)
        try:
            return await self._keys.hold(request)
        except CannotHoldError as error:
            log.warning("key_not_held", extra={"peer": peer, "cause": str(error)})
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))

    async def FetchKey(
        self, request: peers_pb2.FetchKeyRequest, context: Context
    ) -> peers_pb2.FetchKeyResponse:
        """Lend a key of the ring to a member that lacks it, perhaps for its start."""
        await self._member(context)
        return self._keys.lend(request)


async def fetch_at_start(
    addresses: Mapping[NodeId, str],
    tls: PeerTls,
    wanted: KeyInUse,
    *,
    timeout_s: float,
) -> bytes | None:
    """
    Return a key that this node needs for its start, from another member.

    The node does not take part yet, so it uses a channel of its own.
    """
    for peer, address in sorted(addresses.items()):
        channel = grpc.aio.secure_channel(
            address,
            tls.channel_credentials(),
            options=(("grpc.ssl_target_name_override", target_name(peer)),),
        )
        async with channel:
            key = await _ask(channel, wanted, timeout_s)
        if key is not None:
            return key
    return None


async def _ask(
    channel: grpc.aio.Channel, wanted: KeyInUse, timeout_s: float
) -> bytes | None:
    request = peers_pb2.FetchKeyRequest(
        key_id=wanted.key_id, fingerprint=wanted.fingerprint
    )
    try:
        answer = await answered(stub_of(channel).FetchKey(request, timeout=timeout_s))
    except grpc.aio.AioRpcError:
        return None
    return answer.key or None

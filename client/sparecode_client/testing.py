# SPDX-License-Identifier: Apache-2.0
"""
`FakeCluster`: a cluster in this process, for the tests of programs that use the library.

    with FakeCluster() as cluster:
        alice = cluster.add_user("alice", pin="4719")
        agent = cluster.agent("vpn")
        assert agent.authenticate("alice", alice.passcode()).accepted

The decisions are those of a real cluster, by the same rules on the same state: a code
works once, guesses lock, a lost token is refused. There is no network: `Agent` and
`Admin` call the nodes over socket files in a temporary folder. What a test has to wait for
otherwise, it makes happen: time passes with `advance`, and nodes, the quorum and answers
are lost on demand.

It needs the node's software: `pip install "sparecode[node]"`, for tests alone. The client
package itself has no decisions in it, and a second implementation of the rules would not
be one to rely on.
"""

import asyncio
import contextlib
import importlib.metadata
import secrets
import shutil
import tempfile
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar

import grpc

from sparecode_client.admin import AsyncAdmin
from sparecode_client.agent import AsyncAgent
from sparecode_client.blocking import Admin, Agent
from sparecode_client.connection.attempts import NoAnswerError
from sparecode_client.connection.channels import OPTIONS
from sparecode_client.connection.client import DEFAULT_TIMEOUT, Client
from sparecode_client.connection.statuses import Status
from sparecode_client.values.agents import AgentProtects
from sparecode_client.values.tokens import NewToken, PinRule

__all__ = ["ADMINISTRATOR", "PASSWORD", "FakeCluster", "FakeToken"]

ADMINISTRATOR: Final = "root"
"""The first administrator, a super administrator."""
PASSWORD: Final = "correct horse battery staple"
START_S = 60.0
HOST = "localhost"
"""The name in the nodes' certificates: a socket file has none of its own."""
SEED_BYTES = 20
TIME_STEP = timedelta(seconds=30)

R = TypeVar("R")


class Backend(Protocol):
    """What `sparecode[node]` provides, by the entry point `cluster`."""

    @property
    def ca(self) -> bytes:
        """The authority of the nodes' certificates, PEM."""

    @property
    def nodes(self) -> Sequence[str]:
        """The ids of the nodes."""

    def address(self, node: str, listener: str) -> str:
        """Return the address of a node's listener, `agents` or `admin`, for gRPC."""

    async def start(self, *, administrator: str, password: str) -> None:
        """Start every node, and found the cluster."""

    async def stop(self) -> None:
        """Stop everything."""

    async def start_node(self, name: str) -> None:
        """Start a node. Raises `KeyError`."""

    async def stop_node(self, name: str) -> None:
        """Stop a node. Raises `KeyError`."""

    def certify_agent(self, name: str) -> tuple[bytes, bytes]:
        """Return a certificate and a key of an agent, PEM."""

    def set_faults(self, *, has_quorum: bool, answers_get_lost: bool) -> None:
        """Switch faults on or off."""

    def advance(self, by: timedelta) -> None:
        """Move the cluster's clock forward."""

    def tokencode(self, seed: bytes) -> str:
        """Return what a TOTP token with this seed shows now."""


class FakeToken:
    """A token of a user, as the user has it in hand."""

    def __init__(
        self,
        cluster: "FakeCluster",
        *,
        serial: str,
        username: str,
        pin: str,
        seed: bytes,
    ) -> None:
        self.serial = serial
        self.username = username
        self.pin = pin
        """Empty: the token needs no PIN."""
        self._cluster = cluster
        self._seed = seed
        self._shown = ""

    def __repr__(self) -> str:
        """Return the serial; the seed is secret, as it is on a device."""
        return f"FakeToken({self.serial!r} of {self.username!r})"

    def tokencode(self) -> str:
        """
        Return the tokencode that the token shows next.

        Each tokencode is returned once, as a cluster accepts it once: a second call
        lets a time step pass.
        """
        code = self._cluster.tokencode(self._seed)
        if code == self._shown:
            self._cluster.advance(TIME_STEP)
            code = self._cluster.tokencode(self._seed)
        self._shown = code
        return code

    def passcode(self, code: str = "") -> str:
        """Return what the user types: the PIN, then *code* or the next tokencode."""
        return f"{self.pin}{code or self.tokencode()}"

    def issue_codes(self, count: int = 3) -> list[str]:
        """Issue emergency codes, as the help desk does when the token is lost."""
        issued = self._cluster.admin().issue_tokencodes(self.serial, count=count)
        return [each.code for each in issued.codes]


class FakeCluster:
    """
    A cluster of *nodes* nodes in this process, with a super administrator.

    Use it as a context manager, or call `close`. It starts in about half a second, so a
    test may have one of its own. Rate limits are off. The policy is that of a new cluster:
    change it by `admin().update_policy`.

    Raises:
        ImportError: The node's software is not installed.
    """

    def __init__(self, *, nodes: int = 3) -> None:
        backend = _backend()
        self._folder = Path(tempfile.mkdtemp(prefix="sparecode-"))
        self._agents: dict[str, tuple[bytes, bytes]] = {}
        self._clients: list[Agent | Admin] = []
        self._admin: Admin | None = None
        self._serial = 0
        self._is_faulty = False
        self._is_signed_in = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="fake cluster", daemon=True
        )
        self._thread.start()
        self._cluster: Backend = backend(self._folder, nodes=nodes)
        try:
            self._run(
                self._cluster.start(administrator=ADMINISTRATOR, password=PASSWORD)
            )
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients that this cluster has made, and stop it."""
        for each in self._clients:
            each.close()
        self._clients.clear()
        if self._loop.is_closed():
            return
        try:
            self._run(self._cluster.stop())
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine in the cluster's thread."""
        future: Future[R] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(START_S)

    # --- Clients

    def async_admin(
        self, *, nodes: Sequence[str] = (), timeout: timedelta = DEFAULT_TIMEOUT
    ) -> AsyncAdmin:
        """Return a client that is not signed in: call `login(ADMINISTRATOR, PASSWORD)`."""
        return AsyncAdmin.over(self._client("admin", nodes, timeout))

    def admin(self, *, timeout: timedelta = DEFAULT_TIMEOUT) -> Admin:
        """
        Return a client of the super administrator, signed in; the same each time.

        Sessions end with time: after `advance`, call it again to sign in again.
        """
        if self._admin is None:
            self._admin = Admin.over(self.async_admin(timeout=timeout))
            self._admin.confirm_with(lambda _code: PASSWORD)
            self._clients.append(self._admin)
        if not self._is_signed_in:
            self._admin.login(ADMINISTRATOR, PASSWORD)
            self._is_signed_in = True
        return self._admin

    def async_agent(
        self,
        name: str = "vpn",
        *,
        nodes: Sequence[str] = (),
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> AsyncAgent:
        """Return a client of an agent that is registered: see `register_agent`."""
        certificate, key = self._agents[name]
        client = self._client("agents", nodes, timeout, certificate, key)
        return AsyncAgent.over(client)

    def agent(
        self,
        name: str = "vpn",
        *,
        nodes: Sequence[str] = (),
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> Agent:
        """
        Return a client of an agent, which is registered if it is not yet.

        *nodes* are ids, in the order in which the first call tries them. Default: all.
        """
        if name not in self._agents:
            self.register_agent(name)
        agent = Agent.over(self.async_agent(name, nodes=nodes, timeout=timeout))
        self._clients.append(agent)
        return agent

    def _client(
        self,
        listener: str,
        nodes: Sequence[str],
        timeout: timedelta,
        certificate: bytes | None = None,
        key: bytes | None = None,
    ) -> Client:
        credentials = grpc.ssl_channel_credentials(self._cluster.ca, key, certificate)

        def connect(address: str) -> grpc.aio.Channel:
            return grpc.aio.secure_channel(
                address,
                credentials,
                options=[*OPTIONS, ("grpc.default_authority", HOST)],
            )

        names = nodes or self._cluster.nodes
        addresses = [self._cluster.address(name, listener) for name in names]
        return Client(addresses, connect, timeout=timeout, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        """Wait between two rounds over the nodes; during a fault, give up at once."""
        if self._is_faulty and seconds:
            raise NoAnswerError(Status(code=grpc.StatusCode.UNAVAILABLE, words="fault"))
        await asyncio.sleep(seconds)

    # --- People and programs

    def register_agent(
        self,
        name: str = "vpn",
        *,
        protects: AgentProtects = AgentProtects.AUTHENTICATION_MANAGER,
        restricted: bool = False,
    ) -> None:
        """Register an agent with a certificate of its own."""
        self._agents[name] = self._cluster.certify_agent(name)
        self.admin().register_agent(
            name, f"sparecode://agent/{name}", protects=protects, restricted=restricted
        )

    def add_user(self, username: str, *, pin: str = "", serial: str = "") -> FakeToken:
        """
        Add a user with a TOTP token, and return the token.

        Without a *pin* the token needs none. *serial* defaults to a new one.
        """
        self._serial += 1
        serial = serial or f"{self._serial:012d}"
        seed = secrets.token_bytes(SEED_BYTES)
        admin = self.admin()
        admin.create_user(username)
        rule = PinRule.PREPENDED if pin else PinRule.NONE
        admin.enroll_token(NewToken(serial=serial, seed=seed, pin_rule=rule))
        admin.assign_token(serial, username)
        if pin:
            admin.set_pin(serial, pin)
        return FakeToken(self, serial=serial, username=username, pin=pin, seed=seed)

    def tokencode(self, seed: bytes) -> str:
        """Return what a TOTP token (SHA-1, six digits, 30 s) with this seed shows now."""
        return self._cluster.tokencode(seed)

    # --- Time and faults

    def advance(self, by: timedelta) -> None:
        """
        Let time pass at once: locks end, codes expire, tokens show other tokencodes.

        Raises:
            ValueError: *by* is negative.
        """
        self._cluster.advance(by)
        self._is_signed_in = False

    def stop_node(self, node: str) -> None:
        """Stop a node, such as `n1`: callers go to another one. Raises `KeyError`."""
        self._run(self._cluster.stop_node(node))

    def start_node(self, node: str) -> None:
        """Start a node again. Raises `KeyError`."""
        self._run(self._cluster.start_node(node))

    @contextlib.contextmanager
    def no_quorum(self) -> Iterator[None]:
        """
        Let every call in the body fail with `Unavailable`: nothing is decided or changed.

        Calls try every node once, and do not wait for their timeout.
        """
        with self._fault(has_quorum=False, answers_get_lost=False):
            yield

    @contextlib.contextmanager
    def lost_answers(self) -> Iterator[None]:
        """
        Let calls in the body be decided or applied, and their answers be lost.

        Decisions and changes raise `OutcomeUnknown`, without waiting for the timeout.
        After the body, a call with the same request id returns the first decision.
        """
        with self._fault(has_quorum=True, answers_get_lost=True):
            yield

    @contextlib.contextmanager
    def _fault(self, *, has_quorum: bool, answers_get_lost: bool) -> Iterator[None]:
        self._cluster.set_faults(
            has_quorum=has_quorum, answers_get_lost=answers_get_lost
        )
        self._is_faulty = True
        try:
            yield
        finally:
            self._is_faulty = False
            self._cluster.set_faults(has_quorum=True, answers_get_lost=False)


def _backend() -> Any:  # noqa: ANN401  A class with the methods of `Backend`.
    points = importlib.metadata.entry_points(group="sparecode.testing", name="cluster")
    try:
        return next(iter(points)).load()
    except (StopIteration, ModuleNotFoundError):
        raise ImportError(
            "FakeCluster needs the software of a node, in the environment of the "
            'tests: pip install "sparecode[node]"'
        ) from None

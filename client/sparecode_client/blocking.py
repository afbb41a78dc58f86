# SPDX-License-Identifier: Apache-2.0
"""
The client for programs without an event loop.

Each method of `Agent` and `Admin` runs the coroutine of `AsyncAgent` or `AsyncAdmin`
with the same name, on one event loop for all of them, in a thread of its own. Threads
may share an `Agent` or `Admin`: the loop runs one step at a time.
"""

import asyncio
import atexit
import functools
import os
import sys
import threading
import types
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import (
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    overload,
)

from sparecode_client.admin import AsyncAdmin
from sparecode_client.agent import AsyncAgent
from sparecode_client.clusters.agent import AsyncRoutedAgent
from sparecode_client.connection.channels import Nodes, PathLike
from sparecode_client.connection.client import DEFAULT_TIMEOUT

IN_CALLBACK = (
    "a callback runs in the thread of all blocking clients, and must not call one: "
    "it would wait for itself"
)

P = ParamSpec("P")
R = TypeVar("R")


class Closable(Protocol):
    """An asynchronous client, as the blocking ones use it."""

    @property
    def removed_nodes(self) -> frozenset[str]:
        """Addresses of nodes that have said that they were removed."""

    async def close(self) -> None:
        """Close the connections."""


C = TypeVar("C", bound=Closable)


_starting = threading.Lock()
"""Held while the loop starts: threads that call at the same time must get the same one."""


def _loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of all blocking clients."""
    with _starting:
        return _started_loop()


@functools.cache
def _started_loop() -> asyncio.AbstractEventLoop:
    """
    Start the event loop, in a thread of its own.

    It stays open until the process exits: grpc delivers the end of a canceled call late,
    and to the loop that made the call. If that loop is closed, the delivery fails, and
    with it those to other loops.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(
        target=loop.run_forever, name="sparecode-client", daemon=True
    )
    thread.start()
    atexit.register(_stop, loop, thread)
    return loop


def _forget_loop() -> None:
    """Let a forked process, in which no thread runs, start a loop of its own."""
    _started_loop.cache_clear()
    atexit.unregister(_stop)
    _starting.release()


if sys.platform != "win32":
    os.register_at_fork(
        before=_starting.acquire,
        after_in_parent=_starting.release,
        after_in_child=_forget_loop,
    )


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class Blocking(Generic[C]):
    """Base of the blocking classes. It runs coroutines of an asynchronous caller."""

    def __init__(self, caller: C) -> None:
        self._caller = caller

    @classmethod
    def over(cls, caller: C) -> Self:
        """Return a blocking client that uses *caller*."""
        blocking = object.__new__(cls)
        blocking._caller = caller
        return blocking

    @property
    def removed_nodes(self) -> frozenset[str]:
        """
        Addresses of nodes that have said that they were removed from the cluster.

        They answer no call any more: take them off the list of nodes.
        """
        return self._caller.removed_nodes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        _run(self._caller.close())

    def run(self, start: Callable[[C], Coroutine[Any, Any, R]]) -> R:
        """Run the coroutine that *start* creates, and return its result."""
        return _run(start(self._caller))


def _run(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run *coroutine* until it ends or the calling thread is interrupted."""
    loop = _loop()
    if _runs_here(loop):
        coroutine.close()
        raise RuntimeError(IN_CALLBACK)
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the calling thread is that of *loop*."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class _Method(Generic[P, R]):
    """A blocking method that runs a coroutine function of the asynchronous caller."""

    def __init__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]
    ) -> None:
        def method(blocking: Blocking[Any], *args: P.args, **kwargs: P.kwargs) -> R:
            return blocking.run(lambda caller: function(caller, *args, **kwargs))

        # `help` and IDEs see the signature and the text, and that it is no coroutine.
        self._method = functools.wraps(function)(method)
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._method.__module__ = owner.__module__
        self._method.__qualname__ = f"{owner.__qualname__}.{name}"

    @overload
    def __get__(
        self, instance: None, owner: type
    ) -> Callable[Concatenate[Any, P], R]: ...

    @overload
    def __get__(self, instance: Blocking[Any], owner: type) -> Callable[P, R]: ...

    def __get__(
        self, instance: Blocking[Any] | None, owner: type
    ) -> Callable[..., Any]:
        if instance is None:
            return self._method
        return types.MethodType(self._method, instance)


class Agent(Blocking[AsyncAgent]):
    """
    An authentication agent: asks any node whether passcodes are right.

    It is `AsyncAgent` for programs without an event loop. Threads may share it.

    Raises:
        OSError: A file cannot be read.
        ValueError: An address or a file is wrong.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        ca: PathLike,
        certificate: PathLike,
        key: PathLike,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> None:
        super().__init__(
            AsyncAgent(nodes, ca=ca, certificate=certificate, key=key, timeout=timeout)
        )

    authenticate = _Method(AsyncAgent.authenticate)
    continue_authentication = _Method(AsyncAgent.continue_authentication)


class RoutedAgent(Blocking[AsyncRoutedAgent]):
    """
    An authentication agent that asks the cluster which has the user.

    It is `AsyncRoutedAgent` for programs without an event loop. Threads may share it.

    Raises:
        OSError: A file cannot be read.
        ValueError: The table, an address or a file is wrong.
    """

    def __init__(
        self, table: PathLike, *, timeout: timedelta = DEFAULT_TIMEOUT
    ) -> None:
        super().__init__(AsyncRoutedAgent(table, timeout=timeout))

    authenticate = _Method(AsyncRoutedAgent.authenticate)
    continue_authentication = _Method(AsyncRoutedAgent.continue_authentication)


class Admin(Blocking[AsyncAdmin]):
    """
    An administrator: manages users, tokens, codes and the cluster.

    It is `AsyncAdmin` for programs without an event loop. Threads may share it.

    Raises:
        OSError: A file cannot be read.
        ValueError: An address or a file is wrong.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        ca: PathLike,
        session: str = "",
        certificate: PathLike | None = None,
        key: PathLike | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> None:
        super().__init__(
            AsyncAdmin(
                nodes,
                ca=ca,
                session=session,
                certificate=certificate,
                key=key,
                timeout=timeout,
            )
        )

    @property
    def device_cookie(self) -> str:
        """The device cookie of the last sign-in or change of password, to be kept."""
        return self._caller.device_cookie

    def confirm_with(self, ask: Callable[[bool], str]) -> None:
        """Ask the administrator when a call needs a reauthentication, as `AsyncAdmin`."""
        self._caller.confirm_with(ask)

    login = _Method(AsyncAdmin.login)
    start_browser_login = _Method(AsyncAdmin.start_browser_login)
    collect_browser_login = _Method(AsyncAdmin.collect_browser_login)
    reauthenticate = _Method(AsyncAdmin.reauthenticate)
    logout = _Method(AsyncAdmin.logout)
    logout_everywhere = _Method(AsyncAdmin.logout_everywhere)
    list_sessions = _Method(AsyncAdmin.list_sessions)
    end_session = _Method(AsyncAdmin.end_session)
    who_am_i = _Method(AsyncAdmin.who_am_i)

    create_user = _Method(AsyncAdmin.create_user)
    import_users = _Method(AsyncAdmin.import_users)
    explain_user = _Method(AsyncAdmin.explain_user)
    get_user = _Method(AsyncAdmin.get_user)
    list_users = _Method(AsyncAdmin.list_users)
    update_user = _Method(AsyncAdmin.update_user)
    delete_user = _Method(AsyncAdmin.delete_user)
    unlock_user = _Method(AsyncAdmin.unlock_user)

    enroll_token = _Method(AsyncAdmin.enroll_token)
    import_tokens = _Method(AsyncAdmin.import_tokens)
    get_token = _Method(AsyncAdmin.get_token)
    list_tokens = _Method(AsyncAdmin.list_tokens)
    assign_token = _Method(AsyncAdmin.assign_token)
    unassign_token = _Method(AsyncAdmin.unassign_token)
    enable_token = _Method(AsyncAdmin.enable_token)
    disable_token = _Method(AsyncAdmin.disable_token)
    update_token = _Method(AsyncAdmin.update_token)
    delete_token = _Method(AsyncAdmin.delete_token)
    replace_token = _Method(AsyncAdmin.replace_token)
    resynchronize_token = _Method(AsyncAdmin.resynchronize_token)
    set_pin = _Method(AsyncAdmin.set_pin)
    clear_pin = _Method(AsyncAdmin.clear_pin)
    reinstate_token = _Method(AsyncAdmin.reinstate_token)

    issue_tokencodes = _Method(AsyncAdmin.issue_tokencodes)
    bulk_issue_tokencodes = _Method(AsyncAdmin.bulk_issue_tokencodes)
    generate_tokencodes = _Method(AsyncAdmin.generate_tokencodes)
    save_emergency_access = _Method(AsyncAdmin.save_emergency_access)
    issue_fixed_tokencode = _Method(AsyncAdmin.issue_fixed_tokencode)
    send_tokencodes = _Method(AsyncAdmin.send_tokencodes)
    get_emergency_access = _Method(AsyncAdmin.get_emergency_access)
    list_emergency_access = _Method(AsyncAdmin.list_emergency_access)
    disable_emergency_access = _Method(AsyncAdmin.disable_emergency_access)

    register_agent = _Method(AsyncAdmin.register_agent)
    get_agent = _Method(AsyncAdmin.get_agent)
    list_agents = _Method(AsyncAdmin.list_agents)
    update_agent = _Method(AsyncAdmin.update_agent)
    remove_agent = _Method(AsyncAdmin.remove_agent)
    register_radius_client = _Method(AsyncAdmin.register_radius_client)
    update_radius_client = _Method(AsyncAdmin.update_radius_client)
    rotate_radius_secret = _Method(AsyncAdmin.rotate_radius_secret)
    create_agent_key = _Method(AsyncAdmin.create_agent_key)
    deny_certificate = _Method(AsyncAdmin.deny_certificate)
    allow_certificate = _Method(AsyncAdmin.allow_certificate)
    list_denied_certificates = _Method(AsyncAdmin.list_denied_certificates)

    list_channels = _Method(AsyncAdmin.list_channels)
    create_channel = _Method(AsyncAdmin.create_channel)
    update_channel = _Method(AsyncAdmin.update_channel)
    remove_channel = _Method(AsyncAdmin.remove_channel)
    list_notices = _Method(AsyncAdmin.list_notices)
    send_notices_again = _Method(AsyncAdmin.send_notices_again)
    test_channel = _Method(AsyncAdmin.test_channel)
    preview_notices = _Method(AsyncAdmin.preview_notices)

    get_status = _Method(AsyncAdmin.get_status)
    transfer_primary = _Method(AsyncAdmin.transfer_primary)
    create_backup = _Method(AsyncAdmin.create_backup)
    watch_status = _Method(AsyncAdmin.watch_status)
    list_members = _Method(AsyncAdmin.list_members)
    create_join_ticket = _Method(AsyncAdmin.create_join_ticket)
    add_member = _Method(AsyncAdmin.add_member)
    remove_member = _Method(AsyncAdmin.remove_member)
    keep_authorities = _Method(AsyncAdmin.keep_authorities)
    declare_segments_lost = _Method(AsyncAdmin.declare_segments_lost)
    list_moves = _Method(AsyncAdmin.list_moves)
    get_move_key = _Method(AsyncAdmin.get_move_key)
    prepare_move = _Method(AsyncAdmin.prepare_move)
    freeze_users = _Method(AsyncAdmin.freeze_users)
    export_moved_users = _Method(AsyncAdmin.export_moved_users)
    import_moved_users = _Method(AsyncAdmin.import_moved_users)
    activate_move = _Method(AsyncAdmin.activate_move)
    cancel_move = _Method(AsyncAdmin.cancel_move)
    end_move = _Method(AsyncAdmin.end_move)
    reclaim_move = _Method(AsyncAdmin.reclaim_move)
    delete_moved_users = _Method(AsyncAdmin.delete_moved_users)
    confirm_archive = _Method(AsyncAdmin.confirm_archive)
    withdraw_archive = _Method(AsyncAdmin.withdraw_archive)
    replace_authorities = _Method(AsyncAdmin.replace_authorities)
    rotate_keys = _Method(AsyncAdmin.rotate_keys)
    get_review = _Method(AsyncAdmin.get_review)
    open_cluster = _Method(AsyncAdmin.open_cluster)

    list_audit_events = _Method(AsyncAdmin.list_audit_events)
    export_audit_events = _Method(AsyncAdmin.export_audit_events)
    get_checkpoint = _Method(AsyncAdmin.get_checkpoint)
    verify_chain = _Method(AsyncAdmin.verify_chain)

    get_policy = _Method(AsyncAdmin.get_policy)
    update_policy = _Method(AsyncAdmin.update_policy)

    create_administrator = _Method(AsyncAdmin.create_administrator)
    list_administrators = _Method(AsyncAdmin.list_administrators)
    update_administrator = _Method(AsyncAdmin.update_administrator)
    remove_administrator = _Method(AsyncAdmin.remove_administrator)
    change_password = _Method(AsyncAdmin.change_password)
    cancel_reset = _Method(AsyncAdmin.cancel_reset)
    enroll_second_factor = _Method(AsyncAdmin.enroll_second_factor)
    confirm_second_factor = _Method(AsyncAdmin.confirm_second_factor)
    remove_second_factor = _Method(AsyncAdmin.remove_second_factor)

    list_approvals = _Method(AsyncAdmin.list_approvals)
    approve = _Method(AsyncAdmin.approve)
    reject = _Method(AsyncAdmin.reject)

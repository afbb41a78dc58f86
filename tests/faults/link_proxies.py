# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - it prints its results.
"""
Proxies before the members' listeners, whose connections die silently.

While they stand there, the kernel redirects new connections between members to a proxy
in the namespace of the called node, and resets the older ones. So nodes need no other
addresses, and the network is as before when the proxies are gone.

This module is also the program in that namespace: LISTEN and TARGET as arguments, the
name of a `Death` as a line of its input.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Self

from tests.faults.network import ToolError, inside, run
from tests.replication.silent_proxy import Death, SilentProxy, before

PORT = 7311
REDIRECTED_S = 10.0
"""How long the members may take until all of them are connected through the proxies."""
_POLL_S = 0.05


class LinkProxies:
    """A proxy before each of these nodes, as a context manager."""

    def __init__(self, places: Sequence[tuple[str, str]]) -> None:
        """Take namespaces and peer addresses of the nodes."""
        self._places = places
        self._proxies: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            for place, address in self._places:
                self._start(place, address)
            for place, address in self._places:
                _redirect("-A", place, address)
            self._reset_older()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the proxies: their connections are closed."""
        for place, address in self._places:
            try:
                _redirect("-D", place, address)
            except ToolError:
                continue  # It was not there yet.
        for proxy in self._proxies:
            proxy.terminate()
            proxy.communicate(timeout=10)

    def _start(self, place: str, address: str) -> None:
        host, _, _ = address.rpartition(":")
        command = [sys.executable, "-m", "tests.faults.link_proxies"]
        proxy = subprocess.Popen(
            [*inside(place), *command, f"{host}:{PORT}", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._proxies.append(proxy)
        _ask(proxy, "")  # It listens.

    def _reset_older(self) -> None:
        """Reset the connections that do not pass a proxy, until each proxy has one."""
        for action in ("-A", "-D"):
            for place, address in self._places:
                _, _, port = address.rpartition(":")
                run(
                    *(*inside(place), "iptables", action, "INPUT"),
                    *("-p", "tcp", "--dport", port, "!", "-i", "lo"),
                    *("-j", "REJECT", "--reject-with", "tcp-reset"),
                )
            deadline = time.monotonic() + REDIRECTED_S
            while action == "-A" and min(self.connections()) < len(self._places) - 1:
                if time.monotonic() > deadline:
                    raise ToolError("the members do not connect through the proxies")
                time.sleep(_POLL_S)

    def connections(self) -> list[int]:
        """Return the number of living connections through each proxy."""
        return [_ask(proxy, "") for proxy in self._proxies]

    def kill(self, death: Death) -> list[int]:
        """Let all connections die; return their numbers."""
        return [_ask(proxy, death.name) for proxy in self._proxies]

    def swallowed(self) -> int:
        """Return the number of bytes that did not arrive."""
        return sum(_ask(proxy, "swallowed") for proxy in self._proxies)


def _redirect(action: str, place: str, address: str) -> None:
    _, _, port = address.rpartition(":")
    run(
        *(*inside(place), "iptables", "-t", "nat", action, "PREROUTING"),
        *("-p", "tcp", "--dport", port, "-j", "REDIRECT", "--to-ports", str(PORT)),
    )


def _ask(proxy: subprocess.Popen[str], order: str) -> int:
    assert proxy.stdin is not None
    assert proxy.stdout is not None
    proxy.stdin.write(order + "\n")
    proxy.stdin.flush()
    return int(proxy.stdout.readline() or -1)


# --- The program in a namespace


async def serve(listen: str, target: str) -> None:
    """Obey the orders until the input ends."""
    async with before(target, listen) as proxy:
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
        )
        while order := await orders.readline():
            print(_obey(proxy, order.decode().strip()), flush=True)


def _obey(proxy: SilentProxy, order: str) -> int:
    match order:
        case "":
            return sum(each.death is None for each in proxy.connections)
        case "swallowed":
            return proxy.swallowed
        case name:
            return len(proxy.kill(Death[name]))


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))

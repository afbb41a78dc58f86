# SPDX-License-Identifier: Apache-2.0
"""
The certificates of a node's listeners: read at the start, and again when they change.

Files are looked at every few seconds, and at once when the node is told to read
its configuration again. What cannot be used is said in the log, and the old one
stays in use: a certificate and its key are two files, and may be copied one after
the other.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sparecode_node.config import (
    Config,
    ListenerConfig,
    LogConfig,
    LogFormat,
    LogLevel,
    MutualListenerConfig,
)
from sparecode_node.replication.links.tls import URI_PREFIX
from sparecode_node.rpc.tls import CertificateEnds, TlsFileError, TlsFiles
from sparecode_node.services.ambient import Clock

log = logging.getLogger(__name__)

ListenerT = TypeVar("ListenerT", bound=ListenerConfig)

CHECK_S = 5.0
WARN_DAYS = (30, 7, 1)
"""A certificate that ends is in the log so many days before, and then again."""


class Certificates:
    """What each listener shows and trusts now. `run` it in the loop."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        *,
        on_renewed: Callable[[str, TlsFiles], Awaitable[None]],
    ) -> None:
        """Read the files; *on_renewed* is told what is new. Raises `TlsFileError`."""
        self._config = config
        self._clock = clock
        self._on_renewed = on_renewed
        self._reload = asyncio.Event()
        self._refused: dict[str, str] = {}
        self._warned: dict[str, int] = {}
        self._files = {name: self._read(name) for name in _listeners(config)}

    def __getitem__(self, name: str) -> TlsFiles:
        """Return those of a listener; any thread may ask."""
        return self._files[name]

    def ends(self) -> Mapping[str, CertificateEnds]:
        """Return when they end, by listener; any thread may ask."""
        return {name: files.ends() for name, files in self._files.items()}

    def configure(self, config: Config) -> None:
        """Take the files that this configuration names, soon."""
        self._config = config
        self._reload.set()

    async def run(self) -> None:
        """Look at the files until cancelled."""
        while True:
            self._warn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._reload.wait()
            self._reload.clear()
            try:
                await self.check()
            except Exception:
                # Whatever it is: the old ones are in use, and good for a while.
                log.exception("certificates_not_renewed")

    async def check(self) -> None:
        """Take what has changed."""
        for name in self._files:
            try:
                files = await asyncio.to_thread(self._read, name)
            except TlsFileError as error:
                if self._refused.get(name) != str(error):
                    log.error(  # noqa: TRY400 - the message says it all.
                        "certificate_refused",
                        extra={"listener": name, "cause": str(error)},
                    )
                self._refused[name] = str(error)
                continue
            self._refused.pop(name, None)
            if files != self._files[name]:
                self._files[name] = files
                self._warned.pop(name, None)
                ends_at = files.ends().own
                log.info(
                    "certificate_renewed",
                    extra={"listener": name, "ends_at": ends_at.isoformat()},
                )
                await self._on_renewed(name, files)

    def _read(self, name: str) -> TlsFiles:
        listener = _listeners(self._config)[name]
        files = TlsFiles.read(
            certificate=listener.certificate,
            key=listener.key,
            ca=getattr(listener, "ca", None),
            now=self._now(),
        )
        if name == "peers":
            _check_name(self._config, files)
        return files

    def _warn(self) -> None:
        """Say which certificates end before long, each time that it is more urgent."""
        for name, ends in self.ends().items():
            first = min(at for at in (ends.own, ends.ca) if at is not None)
            days_left = (first - self._now()) / dt.timedelta(days=1)
            due = [days for days in WARN_DAYS if days_left < days]
            if due and self._warned.get(name, WARN_DAYS[0] + 1) > due[-1]:
                self._warned[name] = due[-1]
                log.warning(
                    "certificate_ends",
                    extra={"listener": name, "ends_at": first.isoformat()},
                )

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)


def changed_sections(before: Config, after: Config) -> list[str]:
    """Name what differs between configurations, and only counts at the next start."""
    left, right = _fixed(before), _fixed(after)
    return [
        field.name
        for field in dataclasses.fields(Config)
        if getattr(left, field.name) != getattr(right, field.name)
    ]


def _fixed(config: Config) -> Config:
    """Return the configuration without what may change."""
    nothing = Path()

    def bare(listener: ListenerT) -> ListenerT:
        listener = dataclasses.replace(listener, certificate=nothing, key=nothing)
        if isinstance(listener, MutualListenerConfig):
            listener = dataclasses.replace(listener, ca=nothing)
        return listener

    return dataclasses.replace(
        config,
        log=LogConfig(level=LogLevel.INFO, format=LogFormat.TEXT),
        agents=bare(config.agents),
        peers=bare(config.peers),
        admin=bare(config.admin),
        console=None if config.console is None else bare(config.console),
    )


def _listeners(config: Config) -> dict[str, ListenerConfig]:
    console = {} if config.console is None else {"console": config.console}
    return {
        "agents": config.agents,
        "peers": config.peers,
        "admin": config.admin,
        **console,
    }


def _check_name(config: Config, files: TlsFiles) -> None:
    """Refuse a certificate that the other members would not take for this node's."""
    name = f"{URI_PREFIX}{config.node.id}"
    if name not in files.uris():
        raise TlsFileError(
            f"{config.peers.certificate}: does not name {name}, as the certificate "
            f"of node {config.node.id} must; it names "
            f"{', '.join(files.uris()) or 'no URI'}"
        )

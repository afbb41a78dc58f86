# SPDX-License-Identifier: Apache-2.0
"""Reads a section of a TOML file; whatever is wrong is one line that names it."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_PORT_MAX = 65535


class ConfigError(Exception):
    """The file is not a configuration: one line that names file, section and key."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name, IPv4 address, or IPv6 address in brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return the form that gRPC takes."""
        return f"{self.host}:{self.port}"


class Section:
    """One table of the file. Every key is asked for once; `done` finds the rest."""

    def __init__(self, path: Path, name: str, table: object) -> None:
        if not isinstance(table, dict):
            raise ConfigError(
                f"{path}: {name}: expected the section [{name}], got {quoted(table)}"
            )
        self._path = path
        self._name = name
        self._table: dict[str, object] = table
        self._known: list[str] = []

    def error(self, key: str, message: str) -> ConfigError:
        """Return the one clear line."""
        return ConfigError(f"{self._path}: [{self._name}] {key}: {message}")

    def done(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self._table:
            if key not in self._known:
                raise self.error(
                    key, f"unknown key; allowed are {', '.join(self._known)}"
                )

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text that is not empty."""
        self._known.append(key)
        value = self._table.get(key, default)
        if value is None:
            raise self.error(key, "missing; a text is needed")
        if not isinstance(value, str) or not value:
            raise self.error(key, f"expected a text, got {quoted(value)}")
        return value

    def table(self, key: str) -> dict[str, object]:
        """Return a table of its own."""
        self._known.append(key)
        value = self._table.get(key)
        if not isinstance(value, dict) or not value:
            raise self.error(
                key,
                f"{'missing' if value is None else f'got {quoted(value)}'}; "
                f'needed is [{self._name}.{key}] with lines like n1 = "HOST:PORT"',
            )
        return value

    def table_or_none(self, key: str) -> dict[str, object] | None:
        """Return a table of its own, if there is one."""
        if key not in self._table:
            self._known.append(key)
            return None
        return self.table(key)

    def file(self, key: str) -> Path:
        """Return a path; a relative one starts at the folder of the file."""
        return self._path.parent.absolute() / Path(self.text(key)).expanduser()

    def credential(self, key: str, environment: Mapping[str, str]) -> Path:
        """Return a path, or the file that systemd gives in its place (LoadCredential)."""
        path = self.file(key)
        directory = environment.get("CREDENTIALS_DIRECTORY")
        given = directory and Path(directory, path.name)
        return given if given and given.exists() else path

    def credential_or_none(
        self, key: str, environment: Mapping[str, str]
    ) -> Path | None:
        """Return a path or a credential, if the key is there."""
        if key not in self._table:
            self._known.append(key)
            return None
        return self.credential(key, environment)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        self._known.append(key)
        value = self._table.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, got {quoted(value)}")
        return value

    def number(self, key: str, default: int, allowed: range) -> int:
        """Return a whole number in *allowed*."""
        self._known.append(key)
        value = self._table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f"expected a whole number, got {quoted(value)}")
        if value not in allowed:
            bounds = f"{allowed.start} to {allowed.stop - 1}"
            raise self.error(key, f"{value} is not from {bounds}")
        return value

    def address(self, key: str, default: str | None = None) -> Address:
        """Return `host:port`."""
        text = self.text(key, default)
        host, _, port = text.rpartition(":")
        if (
            not _HOST.fullmatch(host)
            or not port.isdecimal()
            or not 1 <= int(port) <= _PORT_MAX
        ):
            raise self.error(
                key,
                f"{quoted(text)} is not HOST:PORT with a port from 1 to {_PORT_MAX} "
                "(an IPv6 address stands in brackets)",
            )
        return Address(host, int(port))

    def option(self, key: str, options: type[enum.StrEnum], default: str) -> str:
        """Return one of *options*."""
        value = self.text(key, default)
        if value not in list(options):
            raise self.error(
                key, f"{quoted(value)} is none of {', '.join(map(str, options))}"
            )
        return value


def quoted(value: object) -> str:
    """Quote a value of the file, shortened: nobody reads a whole table in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004

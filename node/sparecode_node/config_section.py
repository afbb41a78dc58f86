# SPDX-License-Identifier: Apache-2.0
"""Reads one section of a TOML file. Each error is one line that names its place."""

import enum
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.networks import Network

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_PORT_MAX = 65535
_SHA_256 = re.compile(r"[0-9A-Fa-f]{64}")


class ConfigError(Exception):
    """The file has an error: one line that names the file, section and key."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name, IPv4 address, or IPv6 address in brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return the form that gRPC takes."""
        return f"{self.host}:{self.port}"


class Section:
    """One table of the file. Read each key once; then `done` refuses unknown keys."""

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
        """Return the error of a key, with its file and section."""
        return ConfigError(f"{self._path}: [{self._name}] {key}: {message}")

    def done(self) -> None:
        """Raise `ConfigError` if there are keys that were not read."""
        for key in self._table:
            if key not in self._known:
                raise self.error(
                    key, f"unknown key; the keys are {', '.join(self._known)}"
                )

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text, which must not be empty."""
        self._known.append(key)
        value = self._table.get(key, default)
        if value is None:
            raise self.error(key, "missing; expected a text")
        if not isinstance(value, str) or not value:
            raise self.error(key, f"expected a text, got {quoted(value)}")
        return value

    def command_or_none(self, key: str) -> tuple[str, ...] | None:
        """Return a program and its arguments, or None if the key is missing."""
        self._known.append(key)
        value = self._table.get(key)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(each, str) and "\0" not in each for each in value)
        ):
            raise self.error(
                key,
                f'expected a list of texts such as ["/usr/bin/PROGRAM", "ARGUMENT"], '
                f"got {quoted(value)}",
            )
        if not Path(value[0]).is_absolute():
            raise self.error(
                key,
                f"{quoted(value[0])} must be the absolute path of a program: no shell "
                "runs, and no folder is searched for it",
            )
        return tuple(value)

    def table(self, key: str) -> dict[str, object]:
        """Return a table, which must not be empty."""
        self._known.append(key)
        value = self._table.get(key)
        if not isinstance(value, dict) or not value:
            raise self.error(
                key,
                f"{'missing' if value is None else f'got {quoted(value)}'}; "
                f'expected [{self._name}.{key}] with lines such as n1 = "HOST:PORT"',
            )
        return value

    def table_or_none(self, key: str) -> dict[str, object] | None:
        """Return a table, or None if it is missing."""
        if key not in self._table:
            self._known.append(key)
            return None
        return self.table(key)

    def tables(self, key: str) -> tuple["Section", ...]:
        """Return the tables that `[[section.key]]` begins; none: the key is missing."""
        self._known.append(key)
        value = self._table.get(key, [])
        if not isinstance(value, list):
            raise self.error(
                key, f"expected [[{self._name}.{key}]], got {quoted(value)}"
            )
        return tuple(
            Section(self._path, f"{self._name}.{key}", table) for table in value
        )

    def networks(self, key: str) -> tuple[Network, ...]:
        """Return IP addresses and networks; none: the key is missing."""
        self._known.append(key)
        value = self._table.get(key, [])
        if not isinstance(value, list):
            raise self.error(
                key, f'expected a list such as ["10.1.0.7"], got {quoted(value)}'
            )
        return tuple(self._network(key, each) for each in value)

    def _network(self, key: str, value: object) -> Network:
        try:
            if not isinstance(value, str) or "%" in value:
                raise ValueError  # noqa: TRY301 - Python keeps any text of a zone.
            network = ipaddress.ip_network(value)
        except ValueError:
            raise self.error(
                key,
                f"{quoted(value)} is not an IP address or a network such as 10.1.0.0/16, "
                "with no bit set after the prefix",
            ) from None
        if not network.prefixlen:
            raise self.error(key, f"{quoted(value)} is every address")
        return network

    def fingerprints(self, key: str) -> dict[str, str]:
        """Return the SHA-256 fingerprints in a table, in hexadecimal digits."""
        values: dict[str, str] = {}
        for name, value in (self.table_or_none(key) or {}).items():
            if not isinstance(value, str) or not _SHA_256.fullmatch(value):
                raise self.error(
                    key,
                    f"{name} = {quoted(value)}: expected the SHA-256 of its public key, "
                    "64 hexadecimal digits, as `doctor` on that node shows it",
                )
            values[name] = value.lower()
        return values

    def file(self, key: str) -> Path:
        """Return a path; a relative path starts at the folder of this file."""
        return self._path.parent.absolute() / Path(self.text(key)).expanduser()

    def file_or_none(self, key: str) -> Path | None:
        """Return a path, or None if the key is missing."""
        if key not in self._table:
            self._known.append(key)
            return None
        return self.file(key)

    def credential(self, key: str, environment: Mapping[str, str]) -> Path:
        """Return a path, or the systemd credential of that name (`LoadCredential`)."""
        path = self.file(key)
        directory = environment.get("CREDENTIALS_DIRECTORY")
        loaded = directory and Path(directory, path.name)
        return loaded if loaded and loaded.exists() else path

    def credential_or_none(
        self, key: str, environment: Mapping[str, str]
    ) -> Path | None:
        """Return a path or a credential, or None if the key is missing."""
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
            raise self.error(key, f"{value} is not in the range {bounds}")
        return value

    def number_or_none(self, key: str, allowed: range) -> int | None:
        """Return a whole number in *allowed*, or None if the key is missing."""
        if key in self._table:
            return self.number(key, allowed.start, allowed)
        self._known.append(key)
        return None

    def address(self, key: str, default: str | None = None) -> Address:
        """Return a host and a port."""
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
                "(write an IPv6 address in brackets)",
            )
        return Address(host, int(port))

    def addresses(self, key: str, default: str) -> tuple[Address, ...]:
        """Return one host and port, or a list of them."""
        value = self._table.get(key, default)
        texts = value if isinstance(value, list) else [value]
        if not texts:
            raise self.error(key, 'expected "HOST:PORT" or a list of them')
        self._known.append(key)
        one = (Section(self._path, self._name, {key: text}) for text in texts)
        addresses = tuple(section.address(key) for section in one)
        if len(set(addresses)) < len(addresses):
            raise self.error(key, "names an address twice")
        return addresses

    def option(self, key: str, options: type[enum.StrEnum], default: str) -> str:
        """Return one of *options*."""
        value = self.text(key, default)
        if value not in list(options):
            raise self.error(
                key, f"{quoted(value)} is not one of {', '.join(map(str, options))}"
            )
        return value


def quoted(value: object) -> str:
    """Quote a value for a message, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004

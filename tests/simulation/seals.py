# SPDX-License-Identifier: Apache-2.0
"""
Sealed values of the simulated cluster: a value shows the key that it is sealed with.

The product's `Sealing` and `Resealer` work on them. Only the cipher is replaced: a value
sealed with key 2 is `content@key2`, and one sealed with the first key is the content alone.
So a value that is sealed with another key than its row says can be seen. The mark is
longer than two bytes: one hash in 65,536 ends with `@1`, and runs make millions.
"""

import re
import sqlite3
from collections.abc import Callable, Collection, Sequence

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.keys import KeysInState
from sparecode_node.services.secrets.keyring import KeyRing, UnknownKeyError
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from tests.simulation.people import KEY, marked

MARK = re.compile(rb"@key(\d+)\Z")
KEY_COLUMN = re.compile("(?:^|_)key_id$")
WITHOUT_VALUES = "ring_keys"
"""The table of the keys themselves."""


class MarkedSealing(Sealing):
    """Seals with the keys that a machine's state uses, as its ring does in production."""

    def __init__(self, keys: Callable[[], KeysInState]) -> None:
        super().__init__(
            KeyRing(cluster_id="simulated", active=KEY, keys={KEY: bytes(32)})
        )
        self._keys = keys

    @property
    def aging_keys(self) -> tuple[KeyId, ...]:
        """Replaced keys that some values are still sealed with."""
        return tuple(each.key_id for each in self._keys().aging)

    def _check(self, key_id: KeyId) -> None:
        """See that the ring has the key: a retired one is deleted from it."""
        if not self._keys().uses(key_id):
            raise UnknownKeyError(key_id)

    def _sealed(
        self, key_id: KeyId, purpose: str, content: bytes, belongs_to: Sequence[str]
    ) -> bytes:
        self._check(key_id)
        return marked(content, key_id)

    def _opened(
        self, key_id: KeyId, purpose: str, sealed: bytes, belongs_to: Sequence[str]
    ) -> bytes:
        self._check(key_id)
        if key_of(sealed) != key_id:
            raise BrokenSealError(f"{sealed!r} is not sealed with key {key_id}")
        return MARK.sub(b"", sealed)

    def _mac(self, purpose: str, message: bytes, key_id: KeyId) -> bytes:
        self._check(key_id)
        return marked(message, key_id)


def key_of(sealed: bytes) -> KeyId:
    """Return the key that a value shows."""
    mark = MARK.search(sealed)
    return KeyId(int(mark[1])) if mark else KEY


def sealed_with(db: sqlite3.Connection, keys: Collection[KeyId]) -> list[str]:
    """
    Return what is sealed with one of the keys, by its row or by the value itself.

    It looks at all tables, not at those that the product knows to have seals.
    """
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    seen = []
    for (table,) in tables.fetchall():
        cursor = db.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - of the schema.
        columns = [name for name, *_ in cursor.description]
        seen += [
            f"{table}.{column}: {value!r}"
            for row in cursor.fetchall()
            if table != WITHOUT_VALUES
            for column, value in zip(columns, row, strict=True)
            if (KEY_COLUMN.search(column) and value in keys)
            or (
                isinstance(value, bytes)
                and MARK.search(value)
                and key_of(value) in keys
            )
        ]
    return seen

# SPDX-License-Identifier: Apache-2.0
"""Pages and orders of lists, and the addresses that lead from one to another."""

import enum
from typing import Any, TypeVar
from urllib.parse import urlencode

from sparecode_node.console.kit.visits import Visit
from sparecode_node.queries.views import Found

Order = TypeVar("Order", bound=enum.StrEnum)


def number(visit: Visit) -> int:
    """Return the number of the requested page, from 1 on."""
    typed = visit.query.word("page")
    return max(1, int(typed)) if typed.isascii() and typed.isdecimal() else 1


def order(visit: Visit, orders: type[Order], otherwise: Order) -> Order:
    """Return the requested order."""
    try:
        return orders(visit.query.word("sort"))
    except ValueError:
        return otherwise


def nothing(size: int) -> Found[Any]:
    """Return the page of a list that cannot be read."""
    return Found(items=(), total=0, more=False, number=1, size=size)


class Lists:
    """The addresses of one list: its other pages and orders."""

    def __init__(self, path: str, sort: enum.StrEnum, **query: str) -> None:
        self._path = path
        self.sort = sort.value
        """The present order."""
        self._query = {name: value for name, value in query.items() if value}

    def page(self, number: int) -> str:
        """Return the address of a page in the present order."""
        return self._address(sort=self.sort, page=str(number))

    def sorted(self, sort: str) -> str:
        """Return the address of the first page in another order."""
        return self._address(sort=sort)

    def _address(self, **more: str) -> str:
        return f"{self._path}?{urlencode({**self._query, **more})}"

# SPDX-License-Identifier: Apache-2.0
"""
Which tests run on a cluster of three nodes: told by what their fixtures return.

A fixture that returns a `LocalCluster`, or something that holds one, runs three
processes with a network between them. `tests/conftest.py` counts them each time one
is set up; a cluster of another size has a type of its own.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from local_cluster.cluster import LocalCluster

NODES = 3


def of_three(fixture: Callable[..., Any]) -> bool:
    """Return whether a fixture function returns or holds a cluster of three."""
    try:
        returns = typing.get_type_hints(fixture).get("return")
    except NameError:  # A name that the module imports for its type checker alone.
        return False
    return any(_holds_a_cluster(each) for each in (returns, *typing.get_args(returns)))


def _holds_a_cluster(kind: object) -> bool:
    if not inspect.isclass(kind):
        return False
    if issubclass(kind, LocalCluster):
        return True
    if not dataclasses.is_dataclass(kind):
        return False
    return LocalCluster in typing.get_type_hints(kind).values()


def clusters_in(value: object) -> Iterator[LocalCluster]:
    """Yield the clusters that a fixture has made."""
    if isinstance(value, LocalCluster):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from clusters_in(getattr(value, field.name, None))


def check(fixture: Callable[..., Any], value: object) -> None:
    """Raise if a fixture that says three nodes has made another number."""
    if of_three(fixture):
        sizes = [len(cluster.nodes) for cluster in clusters_in(value)]
        assert sizes == [NODES], f"{fixture.__name__} has made {sizes} nodes"


def runs_on_three(item: pytest.Function) -> bool:
    """Return whether one of a collected test's fixtures is a cluster of three nodes."""
    definitions = item._fixtureinfo.name2fixturedefs
    return any(
        of_three(definition.func)
        for name in item.fixturenames
        for definition in definitions.get(name, ())[-1:]
    )

# SPDX-License-Identifier: Apache-2.0
"""Every method that there is, read from the generated code: a new one is never left out."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from google.protobuf.descriptor import MethodDescriptor

from sparecode.internal import v1 as internal
from sparecode.v1 import types_pb2


def _files(package: str, paths: list[str]) -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(paths):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(f"{package}.{module.name}")


def _methods(files: Iterator[ModuleType]) -> Iterator[MethodDescriptor]:
    for file in files:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def public() -> dict[str, MethodDescriptor]:
    """Return every method of agents and administrators, as `TokenService/GetToken`."""
    package, _, _ = types_pb2.__name__.rpartition(".")
    paths = list(importlib.import_module(package).__path__)
    return {
        f"{method.containing_service.name}/{method.name}": method
        for method in _methods(_files(package, paths))
    }


def between_members() -> dict[str, MethodDescriptor]:
    """Return every method that members call of each other, and those who join."""
    return {
        f"{method.containing_service.name}/{method.name}": method
        for method in _methods(_files(internal.__name__, list(internal.__path__)))
    }

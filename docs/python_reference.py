# SPDX-License-Identifier: Apache-2.0
"""
The reference of the client library, from its signatures and docstrings.

Reads the source, not the objects: annotations and defaults are shown as they are written,
on every Python.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator

import sparecode_client
from sparecode_client import errors, testing
from sparecode_client.admin import AsyncAdmin
from sparecode_client.blocking import Admin, Agent, Blocking
from sparecode_client.connection.client import Caller

WIDTH = 88
RAISED = re.compile(r"^    (\w+): ")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def body() -> list[str]:
    """Return the lines of the page below its introduction."""
    named = {name: getattr(sparecode_client, name) for name in sparecode_client.__all__}
    values = {
        name: each
        for name, each in named.items()
        if each.__module__.startswith("sparecode_client.values.")
    }
    lines = ["## Agents", "", *_client(Agent, sparecode_client.AsyncAgent)]
    lines += ["## Administrators", "", *_client(Admin, AsyncAdmin)]
    lines += ["### Every client", "", *_methods(Caller, without=("over",))]
    lines += _methods(Blocking, without=("over", "close", "removed_nodes"))
    for service in AsyncAdmin.__bases__:
        lines += [f"### {_spaced(service.__name__)}", "", *_methods(service)]
    lines += ["## Errors", "", "```text", *_tree(), "```", ""]
    for name, each in named.items():
        if inspect.isclass(each) and issubclass(each, errors.SparecodeError):
            lines += [*_heading(name, each), *_attributes(each)]
    lines += ["## Values", ""]
    for name, each in values.items():
        if inspect.isclass(each):
            lines += [*_heading(name, each), *_fields(each), *_methods(each, level=4)]
        else:
            lines += _method(_functions_of(each)[0], level=3)
    lines += ["## Tests", "", "`from sparecode_client.testing import FakeCluster`", ""]
    for each in (testing.FakeCluster, testing.FakeToken):
        made = _initializer(each) if each is testing.FakeCluster else _attributes(each)
        lines += [*_heading(each.__name__, each), *made, *_methods(each, level=4)]
    return lines[:-1]


def _client(blocking: type, asynchronous: type) -> Iterator[str]:
    """Yield what a client of threads and one of asyncio have in common."""
    yield from (f"`{blocking.__name__}` and `{asynchronous.__name__}`:", "")
    yield from (*_text(asynchronous), "")
    yield from _initializer(asynchronous)
    for each in (blocking, asynchronous):
        yield from _methods(each)


def _heading(name: str, each: type) -> list[str]:
    return [f"### {name}", "", *_text(each), ""]


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()


def _text(each: object) -> list[str]:
    """Return a docstring as Markdown: exceptions become a list."""
    lines = []
    raising = False
    for line in inspect.cleandoc(getattr(each, "__doc__", "") or "").splitlines():
        if line == "Raises:":
            raising = True
            lines += [line, ""]
        elif raising and RAISED.match(line):
            lines.append(RAISED.sub(r"* `\1`: ", line))
        elif raising and line.startswith(" "):
            lines.append(f"  {line.strip()}")
        else:
            raising = False
            lines.append(line)
    return lines


def _class_of(each: type) -> ast.ClassDef:
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
    assert isinstance(found, ast.ClassDef)  # noqa: S101  For the type checker.
    return found


def _functions_of(each: Callable[..., object]) -> list[Function]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
    return [node for node in tree.body if isinstance(node, FUNCTIONS)]


def _methods(
    each: type, *, level: int = 4, without: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yield the public methods and properties that a class itself defines."""
    for node in _class_of(each).body:
        if not isinstance(node, FUNCTIONS) or node.name in without:
            continue
        if not node.name.startswith("_"):
            yield from _method(node, level=level)


def _initializer(each: type) -> list[str]:
    """Return how an object is made."""
    for node in _class_of(each).body:
        if isinstance(node, FUNCTIONS) and node.name == "__init__":
            return ["```python", *_signature(node, each.__name__), "```", ""]
    return []


def _method(node: Function, *, level: int) -> list[str]:
    decorators = {ast.unparse(each) for each in node.decorator_list}
    if "property" in decorators:
        returns = ast.unparse(node.returns) if node.returns else "None"
        shown = [f"{node.name}: {returns}"]
    elif "contextlib.contextmanager" in decorators:
        node.returns = None
        shown = _signature(node, f"with {node.name}")
    else:
        shown = _signature(node, node.name)
    documented = type("Documented", (), {"__doc__": ast.get_docstring(node)})
    heading = f"{'#' * level} {node.name}"
    return [heading, "", "```python", *shown, "```", "", *_text(documented), ""]


def _signature(node: Function, name: str) -> list[str]:
    """Return a signature as it is called, on one line if it fits."""
    spec = node.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + list(spec.defaults)
    shown = [_parameter(*each) for each in zip(positional, defaults, strict=True)]
    if shown and positional[0].arg in {"self", "cls"}:
        shown = shown[1:]
    if spec.kwonlyargs:
        shown.append("*")
        shown += map(_parameter, spec.kwonlyargs, spec.kw_defaults)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if node.name == "__init__":
        returns = ""
    line = f"{name}({', '.join(shown)}){returns}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{name}(", *(f"    {each}," for each in shown), f"){returns}"]


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    typed = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    if default is None:
        return f"{argument.arg}{typed}"
    # In double quotes, as in the source.
    text = isinstance(default, ast.Constant) and isinstance(default.value, str)
    shown = json.dumps(default.value) if text else ast.unparse(default)
    return f"{argument.arg}{typed} = {shown}"


def _documented(nodes: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each statement with the text that follows it, as a docstring would."""
    for node, following in zip(nodes, [*nodes[1:], None], strict=True):
        match following:
            case ast.Expr(value=ast.Constant(value=str(words))):
                yield node, " ".join(words.split())
            case _:
                yield node, ""


def _fields(each: type) -> list[str]:
    """Return the fields of a value, or the members of an enumeration."""
    lines = []
    for node, words in _documented(_class_of(each).body):
        match node:
            case ast.AnnAssign(target=target, annotation=annotation):
                name = f"{ast.unparse(target)}: {ast.unparse(annotation)}"
            case ast.Assign(targets=[target]):
                name = ast.unparse(target)
            case _:
                continue
        lines.append(f"* `{name}`" + (f": {words}" if words else ""))
    return [*lines, ""] if lines else []


def _attributes(each: type) -> list[str]:
    """Return the attributes that `__init__` sets."""
    for node in _class_of(each).body:
        if not isinstance(node, FUNCTIONS):
            continue
        lines = [
            f"* `{target.attr}`" + (f": {words}" if words else "")
            for statement, words in _documented(node.body)
            for target in getattr(statement, "targets", ())
            if isinstance(target, ast.Attribute) and not target.attr.startswith("_")
        ]
        return [*lines, ""]
    return []


def _tree() -> list[str]:
    """Return the errors as a tree, which the module itself begins with."""
    text = inspect.cleandoc(errors.__doc__ or "")
    return [line for line in text.splitlines() if re.match(r" *[*-] | {20}", line)]

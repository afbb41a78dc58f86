# SPDX-License-Identifier: Apache-2.0
"""
XML files from administrators, checked before they are read.

A document type is refused, because of expanding entities and external files. The depth,
the number of elements and attributes, and the length of names are bounded.
"""

from xml.etree import ElementTree as ET
from xml.parsers import expat

from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files import bounds

DEPTH_MAX = 32
PARTS_MAX = 64_000
"""Elements and attributes. A file of 1000 tokens has 64 for each of them."""
NAME_CHARACTERS_MAX = 256
"""Of an element or a namespace. The parser copies both for each element."""


def parsed(content: bytes) -> ET.Element:
    """Return the root of a document. Raises `InvalidFieldError` on `content`."""
    bounds.file_size(content)
    _refuse_unsafe(content)
    try:
        return ET.fromstring(content)  # noqa: S314 - unsafe documents were refused.
    except ET.ParseError as error:  # This parser knows namespaces.
        raise InvalidFieldError("content", f"not XML: {error}") from None


def local(element: ET.Element) -> str:
    """Return an element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _refuse_unsafe(content: bytes) -> None:
    """Refuse content that is not XML, declares a document type, or exceeds a bound."""
    depth = parts = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, parts
        depth += 1
        parts += 1 + len(attributes)
        if depth > DEPTH_MAX:
            raise InvalidFieldError(
                "content", f"elements nest deeper than {DEPTH_MAX} levels"
            )
        if parts > PARTS_MAX:
            raise InvalidFieldError(
                "content", f"more than {PARTS_MAX} elements and attributes"
            )
        _refuse_long("an element's name", name)
        for key, value in attributes.items():
            if key == "xmlns" or key.startswith("xmlns:"):
                _refuse_long("a namespace", value)

    def end(name: str) -> None:
        del name
        nonlocal depth
        depth -= 1

    def doctype(*_: object) -> None:
        raise InvalidFieldError("content", "a document type (DOCTYPE) is not allowed")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(content, True)  # noqa: FBT003 - expat has no name for it.
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InvalidFieldError("content", f"not XML: {error}") from None


def _refuse_long(what: str, value: str) -> None:
    if len(value) > NAME_CHARACTERS_MAX:
        raise InvalidFieldError(
            "content",
            f"{what} has {len(value)} characters; at most {NAME_CHARACTERS_MAX}",
        )

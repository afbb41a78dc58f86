# SPDX-License-Identifier: Apache-2.0
"""
XML files from administrators, checked before they are read.

A document type is refused, because of expanding entities and external files. So is too
deep nesting.
"""

from xml.etree import ElementTree as ET
from xml.parsers import expat

from sparecode_node.services import fields
from sparecode_node.services.errors import InvalidFieldError

DEPTH_MAX = 32


def parsed(content: bytes) -> ET.Element:
    """Return the root of a document. Raises `InvalidFieldError` on `content`."""
    fields.file_size(content)
    _refuse_unsafe(content)
    return ET.fromstring(content)  # noqa: S314 - unsafe documents were refused.


def local(element: ET.Element) -> str:
    """Return an element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _refuse_unsafe(content: bytes) -> None:
    """Refuse content that is not XML, declares a document type, or nests too deep."""
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        del name, attributes
        nonlocal depth
        depth += 1
        if depth > DEPTH_MAX:
            raise InvalidFieldError(
                "content", f"elements nest deeper than {DEPTH_MAX} levels"
            )

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

# SPDX-License-Identifier: Apache-2.0
"""The description of the calls: OpenAPI for programs, and a page for people."""

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from sparecode_node.http.problems import NO_STORE

OPENAPI = (Path(__file__).parent / "openapi.json").read_bytes()
STYLE = (
    "body{font:1rem/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{border:1px solid #888;padding:.3rem .6rem;"
    "text-align:left;vertical-align:top}"
)
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; frame-ancestors 'none'"
"""The page loads nothing, from this node or another place."""


async def openapi(_: Request) -> Response:
    """Return the OpenAPI document."""
    return Response(OPENAPI, media_type="application/json", headers=NO_STORE)


async def docs(_: Request) -> Response:
    """Return the same as a page."""
    return HTMLResponse(PAGE, headers={**NO_STORE, "content-security-policy": POLICY})


def page(document: dict[str, Any]) -> str:
    """Return a page about an OpenAPI document of ours."""
    info, schemas = document["info"], document["components"]["schemas"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>{_text(info['title'])}</title><style>{STYLE}</style>",
        f"<h1>{_text(info['title'])}</h1><p>{_text(info['description'])}</p>",
        "<p>The same for programs: <a href=/openapi.json>/openapi.json</a></p>",
    ]
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            parts.append(f"<h2>{method.upper()} {_text(path)}</h2>")
            parts.append(f"<p>{_text(call['summary'])}. ")
            parts.append(f"{_text(call.get('description', ''))}</p>")
            for kind, content in call["requestBody"]["content"].items():
                parts.append(f"<h3>Body: {_text(kind)}</h3>")
                parts.append(_fields(schemas[_name(content["schema"])]))
            parts.append(_answers(call["responses"], schemas))
    return "".join(parts)


def _answers(responses: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows, named = "", {}
    for status, response in responses.items():
        names = {_name(each["schema"]) for each in response["content"].values()}
        named.update(dict.fromkeys(sorted(names)))
        rows += (
            f"<tr><td>{_text(status)}<td>{_text(response['description'])}"
            f"<td>{_text(', '.join(sorted(names)))}"
        )
    tables = "".join(
        f"<h4>{_text(name)}</h4>{_fields(schemas[name])}" for name in named
    )
    heads = "<tr><th>status<th>meaning<th>body"
    return f"<h3>Answers</h3><table>{heads}{rows}</table>{tables}"


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{_text(name)}</code>"
        f"<td>{'required' if name in required else ''}<td>{_text(_meaning(field))}"
        for name, field in schema["properties"].items()
    )
    return f"<table><tr><th>field<th><th>meaning{rows}</table>"


def _meaning(field: dict[str, Any]) -> str:
    values = ", ".join(map(str, field.get("enum", ())))
    return " ".join(filter(None, (values, field.get("description", ""))))


def _name(schema: dict[str, str]) -> str:
    return schema["$ref"].rpartition("/")[2]


def _text(text: str) -> str:
    return html.escape(text)


PAGE = page(json.loads(OPENAPI))

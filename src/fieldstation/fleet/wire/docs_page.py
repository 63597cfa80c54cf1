"""`/docs`: the API's description as a page of our own, made from the OpenAPI document. Needs no network, no script."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

DESCRIPTION = """The control server of a Fieldstation fleet.

Documented endpoints answer GET (arguments as JSON in the body or in the query parameter `json`, documented statuses)
and POST (arguments as JSON in the body, precise statuses). Socket.IO is at `/socket.io/`."""

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1d2733}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}details{border:1px solid #d6dde4;border-radius:6px;
margin:.5rem 0;padding:.5rem .8rem}summary{cursor:pointer}b.m{display:inline-block;width:3.4rem;font-size:.8rem}
b.get{color:#0a6640}b.post{color:#8a4b08}code{font-family:ui-monospace,monospace}table{border-collapse:collapse}
td,th{border-bottom:1px solid #e5eaee;padding:.25rem .7rem .25rem 0;text-align:left;vertical-align:top}
pre{background:#f5f7f9;padding:.6rem;overflow:auto}"""


def schema_of(app: FastAPI, model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a model, complete in itself."""
    return model.model_json_schema(ref_template="#/components/schemas/{model}")


def mount(app: FastAPI) -> None:
    """Serve `/docs`; `/openapi.json` is FastAPI's own."""
    page: list[HTMLResponse] = []

    async def docs(request: Request) -> Response:
        if not page:
            page.append(HTMLResponse(render(app.openapi())))
        return page[0]

    app.add_route("/docs", docs, include_in_schema=False)


def render(document: dict[str, Any]) -> str:
    """Return the page."""
    title = f"{document['info']['title']} {document['info']['version']}"
    parts = [f"<h1>{escape(title)}</h1>"]
    parts += [f"<p>{_prose(text)}</p>" for text in document["info"].get("description", "").split("\n\n")]
    parts.append('<p>The machine-readable form is <a href="openapi.json">openapi.json</a>.</p>')
    tags: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            entry = _operation(path, method, operation, document)
            tags.setdefault(operation.get("tags", ["other"])[0], []).append(entry)
    for tag, entries in tags.items():
        parts += [f"<h2>{escape(tag.capitalize())} endpoints</h2>", *entries]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return head + "\n".join(parts) + "</html>"


def _prose(text: str) -> str:
    """Escape `text` and set what stands in back-ticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    head = f'<b class="m {method}">{method.upper()}</b> <code>{escape(path)}</code> {_prose(operation["summary"])}'
    body = [f"<p>{_prose(operation.get('description', ''))}</p>"]
    content = operation.get("requestBody", {}).get("content")
    for parameter in operation.get("parameters", ()):
        content = content or parameter.get("content")
        body.append(f"<p>Query parameter <code>{escape(parameter['name'])}</code>: ")
        body.append(f"{escape(parameter.get('description', ''))}</p>")
    if content:
        body.append(_arguments(content["application/json"]["schema"]))
    body.append("<table><tr><th>Status<th>Meaning<th>Body</tr>")
    for status, response in sorted(operation["responses"].items()):
        shape = response.get("content", {}).get("application/json", {}).get("schema")
        what = escape(_shape(shape, document)) if shape else ""
        text = escape(response["description"])
        body.append(f"<tr><td>{escape(str(status))}<td>{text}<td><code>{what}</code></tr>")
    return f"<details><summary>{head}</summary>{''.join(body)}</table></details>"


def _arguments(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    lines = [
        f"<tr><td><code>{escape(name)}</code><td>{escape(_type(one))}<td>{'yes' if name in required else ''}"
        f"<td>{_prose(one.get('description', ''))}</tr>"
        for name, one in schema.get("properties", {}).items()
    ]
    return f"<table><tr><th>Argument<th>Type<th>Required<th></tr>{''.join(lines)}</table><br>"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))


def _shape(schema: dict[str, Any], document: dict[str, Any]) -> str:
    if "$ref" in schema:
        found = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return "{" + ", ".join(found.get("properties", {})) + "}"
    if "anyOf" in schema:
        return " or ".join(_shape(one, document) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"[{_shape(schema.get('items', {}), document)}]"
    return json.dumps(schema.get("type", ""))

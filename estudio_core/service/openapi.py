"""The OpenAPI document of the service, drawn from the table of endpoints."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from estudio_core.service.endpoints import Call, Endpoint
from estudio_core.service.refusals import KINDS, json_response
from estudio_core.service.scopes import PLUGIN_NAME

ALWAYS = (400, 401, 403, 404, 405, 413, 429, 500, 503, 504)
"""Statuses that a request may have whatever it is for."""


async def openapi(call: Call) -> Any:
    """Give this document."""
    return json_response(call.request.app.state.openapi)


ENDPOINTS = (Endpoint("/openapi.json", ("GET",), openapi, "This document"),)


def document(endpoints: tuple[Endpoint, ...], version: str) -> dict[str, Any]:
    """Return the document of these endpoints."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {"Error": _ERROR}
    for endpoint in endpoints:
        for method in endpoint.methods:
            path = endpoint.path.replace(":path}", "}")
            paths.setdefault(path, {})[method.lower()] = _operation(endpoint, method, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Estudio", "version": version, "description": "Search that learns from its users."},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
                "algolia": {"type": "apiKey", "in": "header", "name": "x-algolia-api-key"},
            },
        },
    }


def _operation(endpoint: Endpoint, method: str, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    for name in _path_parameters(endpoint.path):
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        if name == "plugin":
            schema["pattern"] = f"^{PLUGIN_NAME.pattern}$"
        parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
    for parameter in endpoint.parameters:
        parameters.append(
            {"name": parameter.name, "in": "query", "description": parameter.what, "schema": parameter.schema}
        )
    statuses = sorted({*ALWAYS, *endpoint.statuses})
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()} {endpoint.path}",
        "summary": endpoint.summary,
        "tags": [endpoint.group],
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done"},
            **({"201": {"description": "Made"}} if endpoint.scope in ("items", "admin") else {}),
            **{
                str(status): {
                    "description": KINDS.get(status, "Refused"),
                    **({"content": {"application/json": {"schema": {}}}} if status == 503 else {}),
                }
                for status in statuses
            },
        },
    }
    if endpoint.scope is not None:
        operation["security"] = [{"bearer": []}, {"basic": []}, {"algolia": []}]
        if endpoint.scope == "search":
            operation["security"].append({})
    if endpoint.body is not None and method not in ("GET", "DELETE", "HEAD"):
        operation["requestBody"] = {
            "required": False,
            "content": {media: {"schema": _schema(endpoint.body, schemas)} for media in endpoint.media},
        }
    return operation


def _schema(body: type[BaseModel] | dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    if isinstance(body, dict):
        return body
    if body.__name__ not in schemas:
        schema = body.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[body.__name__] = schema
    return {"$ref": f"#/components/schemas/{body.__name__}"}


def _path_parameters(path: str) -> list[str]:
    return [part[1:-1].partition(":")[0] for part in path.split("/") if part.startswith("{")]


_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {"type": "object", "properties": {"type": {"type": "string"}, "reason": {"type": "string"}}},
        "status": {"type": "integer"},
    },
}

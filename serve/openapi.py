"""The OpenAPI document of the endpoints, from the published queries.

Written by hand: FastAPI derives a document from typed routes in the code, but these endpoints change with each build.
"""

from collections.abc import Iterable
from typing import Any

from fastapi.openapi.utils import get_openapi

from engines.query import Column, Parameter, Query

SCHEMAS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int64"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "timestamp": {"type": "string", "format": "date-time"},
}
REFUSALS = {
    "304": "The ETag of If-None-Match still is the answer's (never on BigQuery).",
    "400": "A parameter that the query does not take or that cannot be read, or an answer that needs more than"
    " SERVE_MEMORY_LIMIT or SERVE_MAX_BYTES_BILLED.",
    "408": "The answer took longer than SERVE_TIMEOUT_SECONDS.",
    "503": "Nothing is published yet, or too many queries wait.",
}
TOKEN_REFUSALS = {"401": "No token, or an unknown one.", "403": "The token may not run this query."}
ERROR = {
    "application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}},
}


def describe(queries: Iterable[Query], version: str, path: str, *, with_tokens: bool) -> dict[str, Any]:
    """The OpenAPI document of the endpoints under a path.

    Args:
        with_tokens: whether they need a bearer token.
    """
    document = get_openapi(title="Queries to the marts", version=version, routes=[])
    refusals = REFUSALS | (TOKEN_REFUSALS if with_tokens else {})
    responses = {
        status: {"description": text} | ({} if status == "304" else {"content": ERROR})
        for status, text in sorted(refusals.items())
    }
    if with_tokens:
        document["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        document["security"] = [{"token": []}]
    for query in queries:
        contents = {
            "json": {"application/json": {"schema": _answer(query.columns)}},
            "csv": {"text/csv": {"schema": {"type": "string"}}},
        }
        for extension, content in contents.items():
            document["paths"][f"{path}/{query.name}.{extension}"] = {
                "get": {
                    "operationId": f"{query.name}_{extension}",
                    "tags": [query.name],
                    "summary": query.description,
                    "parameters": [_parameter(parameter) for parameter in query.parameters],
                    "responses": {"200": {"description": "The answer.", "content": content}, **responses},
                }
            }
    return document


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = {**SCHEMAS[parameter.type], "default": parameter.default}
    if parameter.type == "integer":
        schema |= {"minimum": 1, "default": int(parameter.default)}
    elif parameter.choices:
        schema |= {"enum": parameter.choices}
    elif parameter.type == "timestamp":
        del schema["format"]  # a date alone, or a time without a zone, is accepted too
    return {"name": parameter.name, "in": "query", "description": parameter.description, "schema": schema}


def _answer(columns: list[Column]) -> dict[str, Any]:
    row = {
        column.name: SCHEMAS[column.type]
        | {"type": [SCHEMAS[column.type]["type"], "null"], "description": column.description}
        for column in columns
    }
    meta = _object({"name": {"type": "string"}, "type": {"type": "string", "enum": list(SCHEMAS)}})
    return _object(
        {
            "meta": {"type": "array", "items": meta, "description": "The columns."},
            "data": {"type": "array", "items": _object(row)},
            "rows": {"type": "integer"},
            "truncated": {"type": "boolean", "description": "There are more rows than limit or SERVE_MAX_ROWS."},
            "statistics": _object({"elapsed": {"type": "number", "description": "Seconds in the warehouse."}}),
        }
    )


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}

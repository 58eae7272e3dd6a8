"""What the OpenAPI schema says of a proxied route: its path parameters, those of the include too.

Owns: how they are found and described. Must not know: how a route forwards.

FastAPI takes parameters from an endpoint's signature, and an endpoint that forwards has none
of the mount's: they belong to a prefix that is only known when the router is included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import fastapi.routing
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

_INCLUDE: Final = getattr(fastapi.routing, "_effective_route_context_var", None)
"""Holds the include that a route is made for. Not public: without it, a prefix is not described."""

_PATH: Final = {
    "name": "path",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Empty, or a slash and the path that is forwarded.",
}
_SCHEMAS: Final = {
    "IntegerConvertor": {"type": "integer"},
    "FloatConvertor": {"type": "number"},
    "UUIDConvertor": {"type": "string", "format": "uuid"},
}
"""By the convertor's class; all others give text."""


def describe_path_parameters(route: APIRoute) -> None:
    """Declare the path parameters of ``route``, or of the include it is just made for.

    Those that a dependency takes are declared by FastAPI.
    """
    described: Any = (_INCLUDE.get() if _INCLUDE else None) or route
    declared = set(_declared(described.dependant))
    described.openapi_extra = {
        "parameters": [
            _parameter(name, convertor)
            for name, convertor in described.param_convertors.items()
            if name not in declared
        ]
    }


def _parameter(name: str, convertor: object) -> dict[str, Any]:
    if name == "path":
        return dict(_PATH)
    schema = _SCHEMAS.get(type(convertor).__name__, {"type": "string"})
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _declared(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.path_params:
        yield parameter.alias
    for dependency in dependant.dependencies:
        yield from _declared(dependency)

"""Describes the path parameters of a proxied route in the OpenAPI schema.

FastAPI reads parameters from the signature of an endpoint. The signature of a forwarding
endpoint has no path parameters, because they also come from the prefix of ``include_router``,
which is only known when the router is included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi_proxy_di.integration.compat import dependant_of

_PATH: Final = {
    "name": "path",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The path that is forwarded, without its leading slash. May be empty.",
}
_SCHEMAS: Final = {
    "IntegerConvertor": {"type": "integer"},
    "FloatConvertor": {"type": "number"},
    "UUIDConvertor": {"type": "string", "format": "uuid"},
}
"""The schemas of path parameters by the class of their convertor; all others are strings."""


def describe_path_parameters(route: Any) -> None:
    """Declare the path parameters of ``route``, a route or an include of a route.

    Parameters that a dependency takes are left to FastAPI. Everything else in
    ``openapi_extra`` is kept.
    """
    dependant = dependant_of(route)
    declared = set() if dependant is None else set(_declared(dependant))
    extra = route.openapi_extra or {}
    # An include starts with the parameters described for the route that it includes.
    parameters = [
        one
        for one in extra.get("parameters", ())
        if one.get("in") != "path" or one.get("name") not in declared
    ]
    declared.update(one.get("name") for one in parameters if one.get("in") == "path")
    parameters.extend(
        _parameter(name, convertor)
        for name, convertor in route.param_convertors.items()
        if name not in declared
    )
    route.openapi_extra = extra | {"parameters": parameters}


def _parameter(name: str, convertor: object) -> dict[str, Any]:
    if name == "path":
        return dict(_PATH)
    schema = _SCHEMAS.get(type(convertor).__name__, {"type": "string"})
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _declared(dependant: Any) -> Iterator[str]:
    for parameter in dependant.path_params:
        yield parameter.alias
    for dependency in dependant.dependencies:
        yield from _declared(dependency)

"""Proxied routes in the app's OpenAPI schema, with ``include_in_schema``."""

import re
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Path, Request
from fastapi.routing import APIRoute

from fastapi_proxy_di import proxy_router
from tests.support.gateways import billing
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import run_app

_METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}


def _parameters(app: FastAPI, path: str, method: str = "get") -> dict[str, dict[str, Any]]:
    """Give an operation's parameters by name; each may occur once."""
    listed = app.openapi()["paths"][path][method]["parameters"]
    assert len({one["name"] for one in listed}) == len(listed)
    return {one["name"]: one for one in listed}


def test_every_method_is_an_operation_of_its_own() -> None:
    """A route for all methods documents the methods that OpenAPI has, each with its own id."""
    app = FastAPI()
    app.include_router(proxy_router("billing", include_in_schema=True), prefix="/billing")

    found = app.openapi()["paths"]["/billing/{path}"]

    assert set(found) == _METHODS
    assert len({one["operationId"] for one in found.values()}) == len(_METHODS)


def test_only_the_methods_that_are_forwarded_are_documented() -> None:
    """``methods`` limits the schema as well."""
    app = FastAPI()
    router = proxy_router("billing", methods=["GET", "POST"], include_in_schema=True)
    app.include_router(router, prefix="/billing")

    assert set(app.openapi()["paths"]["/billing/{path}"]) == {"get", "post"}


def test_parameters_of_each_include_are_declared() -> None:
    """Every name in the path, with the type of its convertor."""
    app, outer = FastAPI(), APIRouter(prefix="/regions/{region}")
    router = proxy_router("billing", path="/v/{version:float}/{path:path}", include_in_schema=True)
    outer.include_router(router, prefix="/{number:int}")
    app.include_router(outer)
    app.include_router(router, prefix="/tenants/{tenant:uuid}")

    schema = app.openapi()["paths"]

    assert set(schema) == {
        "/regions/{region}/{number}/v/{version}/{path}",
        "/tenants/{tenant}/v/{version}/{path}",
    }
    for path in schema:
        for method in _METHODS:
            named = _parameters(app, path, method)
            assert set(named) == set(re.findall(r"{(\w+)}", path))
            assert all(one["in"] == "path" and one["required"] for one in named.values())
    first, second = (_parameters(app, path) for path in schema)
    assert first["region"]["schema"] == {"type": "string"}
    assert first["number"]["schema"] == {"type": "integer"}
    assert first["version"]["schema"] == {"type": "number"}
    assert second["tenant"]["schema"] == {"type": "string", "format": "uuid"}
    assert "forwarded" in second["path"]["description"]


def test_parameter_that_a_dependency_takes_is_declared_once() -> None:
    """FastAPI describes it from the signature, as on any route."""

    async def of_the_path(path: str) -> str:
        return path

    async def guard(
        tenant: Annotated[str, Path(description="who pays")],
        _: Annotated[str, Depends(of_the_path)],
    ) -> None:
        """Take the parameter of the prefix."""

    app = FastAPI()
    app.include_router(
        proxy_router("billing", include_in_schema=True),
        prefix="/tenants/{tenant}/billing",
        dependencies=[Depends(guard)],
    )

    named = _parameters(app, "/tenants/{tenant}/billing/{path}")

    assert set(named) == {"tenant", "path"}
    assert named["tenant"]["description"] == "who pays"


def test_openapi_extra_is_kept() -> None:
    """It gets the parameters, and loses nothing."""
    router = proxy_router("billing", methods=["GET"], include_in_schema=True)
    header = {"name": "x-tenant", "in": "header", "schema": {"type": "string"}}
    for route in router.routes:
        if isinstance(route, APIRoute):
            route.openapi_extra = {"x-team": "payments", "parameters": [header]}
    app = FastAPI()
    app.include_router(router, prefix="/{region}/billing")

    operation = app.openapi()["paths"]["/{region}/billing/{path}"]["get"]

    assert operation["x-team"] == "payments"
    assert [one["name"] for one in operation["parameters"]] == ["x-tenant", "region", "path"]


def test_endpoints_are_named_by_their_upstream() -> None:
    """For tools that identify endpoints by name."""
    routes = [*proxy_router("billing").routes, *proxy_router("archive").routes]

    names = {route.endpoint.__qualname__ for route in routes}  # type: ignore[attr-defined]
    assert names == {"proxy_billing", "proxy_archive"}


@pytest.mark.e2e
async def test_own_route_in_the_router_is_an_ordinary_one() -> None:
    """It matches its own path only."""
    async with ScriptedOrigin() as origin:
        router = proxy_router(billing(origin.url))

        @router.get("/own", tags=["own"])
        async def own(request: Request) -> dict[str, str]:
            return dict(request.path_params)

        router.routes.insert(0, router.routes.pop())
        app = FastAPI()
        app.include_router(router, prefix="/billing")
        async with run_app(app) as running:
            reply = await fetch(running.address, target="/billing/own")

    assert reply.json() == {}
    assert "parameters" not in app.openapi()["paths"]["/billing/own"]["get"]

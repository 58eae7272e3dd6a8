"""Finds routes that anybody may call, because nothing is declared around them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from starlette.applications import Starlette

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.integration.compat import dependant_of
from fastapi_proxy_di.integration.lifespan import reached_routes

__all__ = ["refuse_open"]


def refuse_open(app: Starlette, endpoints: Collection[Any], what: str) -> None:
    """Refuse routes without a dependency of router, include or app.

    Args:
        app: The app that has the routes.
        endpoints: The functions of the routes.
        what: Name of the router, for the message.

    Raises:
        SettingsError: A route has no dependency.
    """
    paths = sorted(set(_open_paths(app, endpoints)))
    if paths:
        raise SettingsError(
            f"{what} at {paths[0]} is open to everybody: it has no login of its own. Give it a "
            f"dependency, e.g. app.include_router({what}(), dependencies=[Depends(require_admin)])"
            ", or say unguarded=True if something in front of the app guards it"
        )


def _open_paths(app: Starlette, endpoints: Collection[Any]) -> Iterator[str]:
    for route in reached_routes(app.routes):
        if getattr(route, "endpoint", None) in endpoints:
            dependant = dependant_of(route)
            if dependant is None or not dependant.dependencies:
                yield route.path

"""``upstreams_ready``: a dependency for an app's readiness endpoint.

FastAPI evaluates the annotations when the app runs, so they are not postponed.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import overload

from fastapi import Depends
from starlette.requests import HTTPConnection

from fastapi_proxy_di.errors import UpstreamsNotReady
from fastapi_proxy_di.integration.balancers import balancers_in_use
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.integration.problems import install_handler
from fastapi_proxy_di.settings import Mention
from fastapi_proxy_di.upstream.balancer import Balancer

__all__ = ["upstreams_ready"]


@overload
def upstreams_ready(*upstreams: Mention | Upstream) -> Callable[..., Awaitable[None]]: ...
@overload
def upstreams_ready(*, checked: None) -> None: ...
def upstreams_ready(
    *upstreams: Mention | Upstream, checked: object = ...
) -> Callable[..., Awaitable[None]] | None:
    """Give a dependency that lets a request through while each upstream has a destination.

    ```python
    @app.get("/ready", dependencies=[Depends(upstreams_ready("billing", "archive"))])
    async def ready() -> dict[str, str]:
        return {"status": "ready"}
    ```

    ``Depends(upstreams_ready)``, without a call, is the dependency for all upstreams that the
    lifespan of the app starts. An upstream that a function in ``app.dependency_overrides``
    replaces is left out there.

    An upstream is ready while at least one of its destinations is healthy, not ejected and
    not draining; in panic it is not. One that has no destinations, because code gives addresses
    (``allowed_destinations``), is always ready. Otherwise the response is a 503 problem document
    that names the upstreams, and no address.

    Args:
        *upstreams: Names, settings classes or instances.
        checked: Given by FastAPI where the function itself is the dependency.

    Raises:
        ValueError: No upstream is given, or one twice.
        UpstreamsNotReady: Raised by the dependency.
    """
    if checked is None:
        return None
    mentions = [one if isinstance(one, Upstream) else Upstream(one) for one in upstreams]
    if not mentions:
        raise ValueError(
            'upstreams_ready() needs an upstream, e.g. upstreams_ready("billing"); for all '
            "upstreams of the app write Depends(upstreams_ready), without a call"
        )
    if len(set(mentions)) != len(mentions):
        raise ValueError("upstreams_ready was given an upstream twice")

    async def ready(**balancers: Balancer) -> None:
        _check(balancers.values())

    # FastAPI solves one parameter for each upstream.
    _set_parameters(
        ready,
        {f"upstream_{number}": (Depends(one), Balancer) for number, one in enumerate(mentions)},
    )
    return ready


async def _all_ready(connection: HTTPConnection) -> None:
    """Check all upstreams of the app; the dependency of ``Depends(upstreams_ready)``."""
    app = connection.scope["app"]
    install_handler(connection.scope)
    _check((await balancers_in_use(app)).values())


def _check(balancers: Iterable[Balancer]) -> None:
    missing = [one.name for one in balancers if not one.available and _needs_some(one)]
    if missing:
        raise UpstreamsNotReady(missing)


def _needs_some(balancer: Balancer) -> bool:
    """Whether an upstream needs a destination: not if code gives addresses, and it has none."""
    settings = balancer.settings
    has_own = balancer.destinations or settings.destinations
    return bool(has_own) or not settings.allowed_destinations.some


def _set_parameters(function: object, parameters: dict[str, tuple[object, type]]) -> None:
    """Set the keyword parameters that FastAPI sees: a default and an annotation for each name."""
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
            for name, (default, annotation) in parameters.items()
        ]
    )


# As a dependency of its own, ``upstreams_ready`` has one parameter, and ``_all_ready`` gives it.
_set_parameters(upstreams_ready, {"checked": (Depends(_all_ready), type(None))})

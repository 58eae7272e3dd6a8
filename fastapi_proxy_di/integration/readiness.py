"""``upstreams_ready("billing")``: a dependency for an app's readiness endpoint.

FastAPI evaluates the annotations when the app runs, so they are not postponed.
"""

import inspect
from collections.abc import Awaitable, Callable

from fastapi import Depends

from fastapi_proxy_di.errors import UpstreamsNotReady
from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.settings import Mention
from fastapi_proxy_di.upstream.balancer import Balancer

__all__ = ["upstreams_ready"]


def upstreams_ready(*upstreams: Mention | Upstream) -> Callable[..., Awaitable[None]]:
    """Give a dependency that lets a request through while each upstream has a destination.

    ```python
    @app.get("/ready", dependencies=[Depends(upstreams_ready("billing", "archive"))])
    async def ready() -> dict[str, str]:
        return {"status": "ready"}
    ```

    An upstream is ready while at least one of its destinations is healthy, not ejected and
    not draining; in panic it is not. Otherwise the response is a 503 problem document that
    names the upstreams, and no address.

    Args:
        *upstreams: Names, settings classes or instances.

    Raises:
        ValueError: No upstream is given, or one twice.
        UpstreamsNotReady: Raised by the dependency.
    """
    mentions = [one if isinstance(one, Upstream) else Upstream(one) for one in upstreams]
    if not mentions:
        raise ValueError('upstreams_ready needs an upstream, e.g. upstreams_ready("billing")')
    if len(set(mentions)) != len(mentions):
        raise ValueError("upstreams_ready was given an upstream twice")

    async def ready(**balancers: Balancer) -> None:
        missing = [one.name for one in balancers.values() if not one.available]
        if missing:
            raise UpstreamsNotReady(missing)

    # FastAPI solves one parameter for each upstream.
    ready.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                f"upstream_{number}",
                inspect.Parameter.KEYWORD_ONLY,
                default=Depends(mention),
                annotation=Balancer,
            )
            for number, mention in enumerate(mentions)
        ]
    )
    return ready

"""``proxy_upstream``: an upstream of a running app, made and closed at run time."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi_proxy_di.integration.lifespan import runtime_of
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.upstream.balancer import Balancer

__all__ = ["proxy_upstream"]


def proxy_upstream(
    app: Any, settings: UpstreamSettings, *, drain: float = 10.0
) -> AbstractAsyncContextManager[Balancer]:
    """Run a further upstream of a running app within the block.

    ```python
    class Tenant(UpstreamSettings, name="tenant"):
        health: HealthSettings = HealthSettings(path="/health")

    async with proxy_upstream(app, Tenant(destinations=[url]).named("acme")) as balancer:
        ...
    ```

    The upstream is one of the app's, like those that its routes mention: the status router,
    metrics, ``Depends(upstreams_ready)`` and ``Upstream("acme").of(app)`` see it, and the app's
    `ProxySettings` hold. The block begins after the first probe of every destination.

    At the end of the block new requests are refused with `UpstreamClosed`, a 503. Open requests
    go on for up to ``drain`` seconds. What is open then is broken off: responses in the middle,
    WebSockets with 1001. A block that still runs when the app ends does nothing at its end,
    since the app has closed the upstream.

    Args:
        app: The app whose lifespan is running.
        settings: The settings, usually those of one class for many upstreams, each of them
            `named <UpstreamSettings.named>`.
        drain: Seconds that open requests may go on after the end of the block.

    Returns:
        A context manager that gives the balancer.

    Raises:
        ProxyNotStarted: No lifespan of the app ran, or it has ended.
        SettingsError: The name is taken, or the settings have a fault that validation cannot
            find. A name is free again when the block of its upstream has ended.
    """
    name = settings.name
    runtime = runtime_of(app, f"upstream {name!r} cannot be started", name)
    return runtime.added(settings, drain)

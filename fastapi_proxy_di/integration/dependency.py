"""``Upstream("billing")``: the dependency that gives an upstream's balancer.

Annotations here are looked at by FastAPI when the app runs, so they are not postponed.
"""

import inspect
from typing import Any, final

from fastapi import Depends
from starlette.requests import HTTPConnection

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.integration.lifespan import UpstreamMention, balancer_of, is_overridden
from fastapi_proxy_di.integration.problems import install_handler
from fastapi_proxy_di.settings import Mention, UpstreamSettings, settings_class
from fastapi_proxy_di.upstream.balancer import Balancer


@final
class Upstream(UpstreamMention):
    """A dependency that gives the balancer of one upstream, in HTTP and WebSocket endpoints.

    ```python
    Billing = Annotated[Balancer, Depends(Upstream("billing"))]
    ```

    Frozen and hashable. An upstream is resolved once a request, however often it is mentioned,
    and ``app.dependency_overrides[Upstream("billing")]`` replaces it everywhere, on proxied
    routes too: a mention that carries settings depends on the mention by name alone.

    It has no subclasses, because proxied routes take the balancer without calling it. A guard
    belongs into ``proxy_router(dependencies=...)``.

    Args:
        upstream: The upstream's name, whose settings are then read from
            ``UPSTREAM_<NAME>_*``; or a declared settings class, or an instance.

    Raises:
        SettingsError: The name is not one, or the class has none.
    """

    def __init_subclass__(cls) -> None:
        raise TypeError(
            f"{cls.__name__}: Upstream has no subclasses, because a proxied route would not call "
            "them. Give what must run before as proxy_router(dependencies=...)"
        )

    def __init__(self, upstream: Mention) -> None:
        if isinstance(upstream, str):
            settings_class(upstream)
            name = upstream
        elif isinstance(upstream, UpstreamSettings) or _is_settings_class(upstream):
            name = upstream.name
        else:
            raise SettingsError(
                f"Upstream({upstream!r}): give a name, a subclass of UpstreamSettings, or an "
                "instance of one"
            )
        if not name:
            raise SettingsError(
                f"Upstream({upstream!r}): the class has no name; write "
                'class Billing(UpstreamSettings, name="billing")'
            )
        super().__init__(name, upstream)
        # What FastAPI sees as the parameters of ``__call__``.
        object.__setattr__(self, "__signature__", _BY_NAME if self.by_name else _by_settings(name))

    async def __call__(
        self, connection: HTTPConnection | None = None, balancer: Any = None
    ) -> Balancer:
        """Give the balancer; called by FastAPI.

        Raises:
            ProxyNotStarted: No lifespan started it.
        """
        if connection is None:
            resolved: Balancer = balancer
            return resolved
        app = connection.scope.get("app")
        is_overridden(app, self.name)  # raises where an override is missed by FastAPI
        install_handler(connection.scope)
        return balancer_of(app, self.name)

    def of(self, app: Any) -> Balancer:
        """Give the balancer outside requests: in jobs, at warm-up, in tests.

        Args:
            app: The app whose lifespan is running.

        Raises:
            ProxyNotStarted: It is not.
        """
        return balancer_of(app, self.name)

    def __repr__(self) -> str:
        return f"Upstream({self.name!r})"


def _is_settings_class(upstream: object) -> bool:
    return isinstance(upstream, type) and issubclass(upstream, UpstreamSettings)


_BY_NAME = inspect.Signature(
    [
        inspect.Parameter(
            "connection", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=HTTPConnection
        )
    ]
)


def _by_settings(name: str) -> inspect.Signature:
    """Have FastAPI solve the mention by name, which may be overridden."""
    parameter = inspect.Parameter(
        "balancer",
        inspect.Parameter.KEYWORD_ONLY,
        default=Depends(Upstream(name)),
        annotation=Balancer,
    )
    return inspect.Signature([parameter])

"""``Upstream("billing")``: the dependency that gives an upstream's balancer.

FastAPI evaluates the annotations when the app runs, so they are not postponed.
"""

import inspect
from typing import Any, final

from fastapi import Depends
from starlette.requests import HTTPConnection

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.integration.lifespan import balancer_of
from fastapi_proxy_di.integration.mentions import UpstreamMention, is_overridden
from fastapi_proxy_di.integration.problems import install_handler
from fastapi_proxy_di.settings import Mention, UpstreamSettings, settings_class
from fastapi_proxy_di.upstream.balancer import Balancer


@final
class Upstream(UpstreamMention):
    """A dependency that gives the balancer of one upstream, in HTTP and WebSocket endpoints.

    ```python
    Billing = Annotated[Balancer, Depends(Upstream("billing"))]
    ```

    Instances are frozen and hashable. FastAPI resolves an upstream once per request, however
    often it is mentioned. ``app.dependency_overrides[Upstream("billing")]`` replaces the
    upstream everywhere, also on proxied routes and where it is mentioned with settings.

    The class has no subclasses, because proxied routes use the balancer without calling the
    dependency. Guards are given as ``proxy_router(dependencies=...)``.

    Args:
        upstream: The upstream's name, whose settings are then read from
            ``UPSTREAM_<NAME>_*``; or a settings class, or an instance of one.

    Raises:
        SettingsError: The name is not valid, or the class has no name.
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
        # FastAPI reads the parameters of ``__call__`` from this signature.
        object.__setattr__(self, "__signature__", _BY_NAME if self.by_name else _by_settings(name))

    async def __call__(
        self, connection: HTTPConnection | None = None, balancer: Any = None
    ) -> Balancer:
        """Give the balancer; called by FastAPI.

        Raises:
            ProxyNotStarted: No lifespan started the upstream.
        """
        if connection is None:
            resolved: Balancer = balancer
            return resolved
        app = connection.scope.get("app")
        is_overridden(app, self.name)  # raises if FastAPI would not apply an override
        install_handler(connection.scope)
        return balancer_of(app, self.name)

    def of(self, app: Any) -> Balancer:
        """Give the balancer outside requests, for example in jobs, at warm-up or in tests.

        Args:
            app: The app whose lifespan is running.

        Raises:
            ProxyNotStarted: No lifespan started the upstream.
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
    """Return a signature that lets FastAPI solve the upstream by name, override included."""
    parameter = inspect.Parameter(
        "balancer",
        inspect.Parameter.KEYWORD_ONLY,
        default=Depends(Upstream(name)),
        annotation=Balancer,
    )
    return inspect.Signature([parameter])

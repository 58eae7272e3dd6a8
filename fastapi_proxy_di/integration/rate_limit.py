"""``rate_limit("100/minute")``: limits requests per key, as a dependency or as a guard.

FastAPI evaluates the annotations when the app runs, so they are not postponed.
"""

import inspect
import re
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import HTTPException
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from fastapi_proxy_di.integration.added_headers import add_headers
from fastapi_proxy_di.integration.compat import exception_handlers
from fastapi_proxy_di.integration.lifespan import RUNTIME
from fastapi_proxy_di.integration.problems import denied, problem
from fastapi_proxy_di.integration.runtime import Runtime
from fastapi_proxy_di.limiting.limiter import (
    CountsRequests,
    Limit,
    Limiter,
    LimitsUnavailable,
    LocalLimiter,
)
from fastapi_proxy_di.limiting.rates import read_rates
from fastapi_proxy_di.limiting.window import Standing

__all__ = ["STARTER", "RateLimit", "RateLimitExceeded", "Refused", "client_address", "rate_limit"]

STARTER: Final = "fastapi_proxy_di.starter"
"""Where a `ProxyApp` puts what started its upstream into the scope, for its guards."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/-]{0,63}")
_SECOND: Final = 1_000_000

Key = Callable[[HTTPConnection], str | Awaitable[str | None] | None]
"""Whose requests are counted together."""


class Refused(HTTPException):
    """A limit has refused a request; a problem document, unless the app has handlers of its own."""

    failure: str = "limits_unavailable"

    def response(self) -> Response:
        """Give the response."""
        return problem(self.status_code, self.detail, self.headers, failure=self.failure)


class RateLimitExceeded(Refused):
    """A `rate_limit` has refused a request, with 429.

    Attributes:
        limit: Name of the limit, as in the header ``RateLimit``.
        retry_after: Whole seconds until the request may be sent again.
    """

    failure = "rate_limit_exceeded"

    def __init__(self, limit: str, retry_after: int, headers: dict[str, str]) -> None:
        super().__init__(
            429,
            f"Too many requests; try again in {retry_after} s.",
            {"retry-after": str(retry_after), **headers},
        )
        self.limit = limit
        self.retry_after = retry_after


def client_address(connection: HTTPConnection) -> str | None:
    """Give the client's address, as the server says it; an IPv6 address without its last half.

    One client has all addresses of an IPv6 network of 64 bits, and could use another one for
    each request. Clients without an address, as on a Unix socket, have one key in common.
    """
    client = connection.scope.get("client")
    if client is None:
        return None
    host: str = client[0]
    if ":" not in host:
        return host
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex()


def rate_limit(
    *rates: str | Iterable[str],
    key: Key = client_address,
    cost: int | Callable[[HTTPConnection], int | Awaitable[int]] = 1,
    exempt: Callable[[HTTPConnection], bool | Awaitable[bool]] | None = None,
    headers: bool = True,
    name: str | None = None,
) -> "RateLimit":
    """Limit the requests of each key.

    ```python
    @app.get("/search", dependencies=[Depends(rate_limit("100/minute", key=user))])
    ```

    It is a dependency of endpoints, routers and proxied routes, HTTP and WebSocket, and a
    ``guard`` of ``proxy_app``. A request above the limit gets 429 with ``Retry-After``; a
    WebSocket is denied before it is accepted. With ``cluster.store`` all processes of the app
    count together, else each by itself, which needs no lifespan.

    Args:
        *rates: ``"100/minute"`` or ``"100/15 minutes"``, in seconds, minutes, hours or days. With
            several, a request is admitted if all have room, and else counts in none.
        key: Gives whose requests are counted together, sync or async; ``None`` is one key for
            all. By default the client's address as the server says it: behind a proxy this is
            the address of the proxy, unless the server is told to trust its
            ``X-Forwarded-For``. If it raises, the request is not admitted.
        cost: How much a request counts, or a function that gives it, 0 for nothing.
        exempt: Gives whether a request is not counted.
        headers: Whether responses have ``RateLimit`` and ``RateLimit-Policy``
            (draft-ietf-httpapi-ratelimit-headers), as far as the app's lifespan runs.
        name: Limits with the same name and rate share their counts. By default the name of
            the key function; required if that is a lambda, a local function or an object.

    Returns:
        The limit.

    Raises:
        ValueError: A rate is none, the cost is never admitted, or a name is missing.
    """
    return RateLimit(
        [text for one in rates for text in ([one] if isinstance(one, str) else one)],
        key=key,
        cost=cost,
        exempt=exempt,
        headers=headers,
        name=name,
    )


class RateLimit(CountsRequests):
    """A limit made by ``rate_limit``: a dependency, and a guard of ``proxy_app``."""

    def __init__(
        self,
        rates: Iterable[str],
        *,
        key: Key,
        cost: int | Callable[[HTTPConnection], int | Awaitable[int]],
        exempt: Callable[[HTTPConnection], bool | Awaitable[bool]] | None,
        headers: bool,
        name: str | None,
    ) -> None:
        read = read_rates(rates)
        if not callable(cost):
            least = min(rate.limit for rate in read)
            if not 0 <= cost <= least:
                raise ValueError(f"cost={cost}: give a number from 0 to {least}, the lowest rate")
        self._name: Final = _name_of(key) if name is None else _checked(name)
        self._limit: Final = Limit(self._name, read)
        self._key: Final = key
        self._cost: Final = cost
        self._exempt: Final = exempt
        self._headers: Final = headers
        self._own: Final = LocalLimiter()
        if name is None:
            shown = [rate.text for rate in read]
        elif len(read) == 1:
            shown = [name]
        else:
            shown = [f"{name} {rate.text}" for rate in read]
        self._shown: Final = shown
        policies = [
            f'"{one}";q={rate.limit};w={rate.seconds}'
            for one, rate in zip(shown, read, strict=True)
        ]
        self._policy: Final = (b"ratelimit-policy", ", ".join(policies).encode())

    async def __call__(self, connection: HTTPConnection) -> None:
        """Count a request; called by FastAPI or by ``proxy_app``.

        Raises:
            RateLimitExceeded: There is no room for it.
            HTTPException: The store is lost, and ``cluster.on_store_lost`` is ``refuse``.
        """
        scope = connection.scope
        if self._exempt is not None:
            exempt = self._exempt(connection)
            if inspect.isawaitable(exempt):
                exempt = await exempt
            if exempt:
                return
        found = self._key(connection)
        key = found if found is None or isinstance(found, str) else await _awaited("key", found)
        if key is not None and not isinstance(key, str):
            raise TypeError(f"key: gave a {type(key).__name__}; give a text, or None")
        cost = self._cost
        if callable(cost):
            given = cost(connection)
            cost = given if isinstance(given, int) else await _awaited("cost", given)
            if not isinstance(cost, int) or cost < 0:
                raise ValueError("cost: give a whole number of at least 0")
        limiter = _limiter_of(scope) or self._own
        try:
            taken = limiter.take(self._limit, key, cost)
            standings = await taken if isinstance(taken, Future) else taken
        except LimitsUnavailable:
            _install_handler(scope)
            raise Refused(
                503, "Requests cannot be counted at the moment.", {"retry-after": "1"}
            ) from None
        index = 0 if len(standings) == 1 else _tightest(standings)
        tightest = standings[index]
        if tightest.wait:
            told = {}
            if self._headers:
                told = {key.decode(): value.decode() for key, value in self._told(index, tightest)}
            _install_handler(scope)
            seconds = -(-tightest.wait // _SECOND)
            raise RateLimitExceeded(self._shown[index], seconds, told)
        if self._headers:
            add_headers(connection, self._told(index, tightest))

    def __repr__(self) -> str:
        return (
            f"rate_limit({', '.join(rate.text for rate in self._limit.rates)}, name={self._name!r})"
        )

    def _told(self, index: int, standing: Standing) -> list[tuple[bytes, bytes]]:
        remaining, _, reset = standing
        value = f'"{self._shown[index]}";r={remaining};t={-(-reset // _SECOND)}'
        return [(b"ratelimit", value.encode()), self._policy]


def _tightest(standings: Sequence[Standing]) -> int:
    """Give the index of the rate that refuses for longest, or of which least remains."""

    def slack(index: int) -> tuple[int, int, int]:
        remaining, wait, reset = standings[index]
        return (-wait, remaining, -reset)

    return min(range(len(standings)), key=slack)


async def _awaited(what: str, value: Any) -> Any:
    if not inspect.isawaitable(value):
        raise TypeError(f"{what}: gave a {type(value).__name__}, which is not what it must give")
    return await value


def _limiter_of(scope: Scope) -> Limiter | None:
    """Give the limiter of the app that runs; ``None`` if no lifespan does."""
    starter = scope.get(STARTER) or scope.get("app")
    runtime = starter if isinstance(starter, Runtime) else getattr(starter, RUNTIME, None)
    return None if runtime is None else runtime.limiter


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name={name!r}: give up to 64 letters, digits, spaces and characters of '._:/-'"
        )
    return name


def _name_of(key: Key) -> str:
    """Give the name of a function that every process knows by the same name."""
    module, name = getattr(key, "__module__", None), getattr(key, "__qualname__", None)
    if module is None or name is None or "<" in name or not inspect.isroutine(key):
        raise ValueError(
            "name: is required, because the key function is a lambda, a local function or an "
            "object, of which there may be several; give e.g. name='per user'"
        )
    return f"{module}.{name}"


async def _respond(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return denied(connection.scope, error.response())


def _install_handler(scope: Scope) -> None:
    """Let refusals be problem documents, unless the app has its own of ``HTTPException``."""
    handlers = exception_handlers(scope)
    if handlers is None or Refused in handlers:
        return
    own = getattr(scope.get("app"), "exception_handlers", {})
    known: Sequence[Any] = [own.get(kind) for kind in (HTTPException, StarletteHTTPException)]
    if all(one is None or one is http_exception_handler for one in known):
        handlers[Refused] = _respond

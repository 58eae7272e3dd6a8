"""What ``Depends(Upstream("billing"))`` gives: an upstream to use from code.

It turns the face's objects (Starlette's ``Request`` and ``WebSocket``) into what the
forwarders take, and arguments into validated overrides. It makes no decision.

Its length is its docstrings: it is the public face of an upstream, and each method is a few
lines that lead to the part that does the work.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Unpack

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from fastapi_proxy_di.balancing.hash_key import RequestKey, key_reader
from fastapi_proxy_di.balancing.selection import select
from fastapi_proxy_di.errors import ClientDisconnected, RequestBodyConsumed
from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.overrides import Overrides, overrides_of
from fastapi_proxy_di.forwarding.response import (
    LocalResponse,
    UpstreamResponse,
    client_closed_request,
)
from fastapi_proxy_di.forwarding.target import given_target, target_below
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import (
    POLICIES,
    Destinations,
    DestinationSettings,
    HealthSettings,
    UpstreamSettings,
)
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.upstream.changes import (
    DestinationChanges,
    HealthChanges,
    changed_destination,
    changed_health,
)
from fastapi_proxy_di.upstream.status import DestinationStatus, UpstreamStatus
from fastapi_proxy_di.wire.headers import HeaderFields

if TYPE_CHECKING:
    from fastapi_proxy_di.client.lease import Lease
    from fastapi_proxy_di.supervision.events import Event
    from fastapi_proxy_di.upstream.composition import Assembly

_LOOK_SECONDS: Final = 0.05
"""How often a draining destination is looked at."""

_POLICIES_WITHOUT_KEY: Final = frozenset(POLICIES) - {"hash"}


class ProxiedResponse(Response):
    """An upstream's response whose head is there; the body streams when it is sent.

    ``status_code`` and ``headers`` may be changed before. One that is not sent is closed at
    the end of the request, by ``aclose`` at once.
    """

    def __init__(self, response: UpstreamResponse | LocalResponse) -> None:
        self._response = response
        self.status_code: int = response.status
        self.raw_headers: Headers = response.headers
        self.background: BackgroundTask | None = None
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; called by Starlette."""
        self._response.status = self.status_code
        await self._response(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def aclose(self) -> None:
        """Drop the response; its exchange ends at once."""
        await self._response.aclose()


class Balancer:
    """One upstream: its destinations, and ways to send requests to them.

    Given by ``Depends(Upstream(name))`` in endpoints and by ``Balancer.from_settings``
    outside an app. Safe to use from any task of its event loop.
    """

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._http = assembly.http
        self._websocket = assembly.websocket
        settings = assembly.settings
        policy = settings.policy
        self._read_key = (
            None
            if isinstance(policy, str)
            and policy in _POLICIES_WITHOUT_KEY
            and settings.affinity is None
            else key_reader(assembly.settings.hash_key)
        )

    @classmethod
    @asynccontextmanager
    async def from_settings(cls, settings: UpstreamSettings) -> AsyncIterator[Balancer]:
        """Run an upstream outside any app: scripts, jobs, tests.

        Args:
            settings: Of the upstream.

        Yields:
            Its balancer, after the first probe of every destination.
        """
        # What only a running upstream needs: half of what importing the package would cost.
        from fastapi_proxy_di.upstream.composition import Assembly  # noqa: PLC0415

        assembly = Assembly(settings)
        try:
            await assembly.start()
            yield cls(assembly)
        finally:
            await assembly.aclose()

    # -- forwarding -------------------------------------------------------------------

    async def forward(
        self,
        request: Request,
        path: str | None = None,
        *,
        method: str | None = None,
        forward_query: bool = True,
        additional_headers: HeaderFields | None = None,
        override_headers: HeaderFields | None = None,
        override_body: Any = None,
        override_host: str | None = None,
        timeout: float | None = None,
    ) -> ProxiedResponse:
        """Stream a request to a picked destination and its answer back.

        Returns when the head of the answer is there; the body flows when the response is
        sent. When the client has left, the response is an empty 499.

        Args:
            request: The client's request.
            path: Where to, percent-encoded, starting with ``/``, sent as it is; a query in
                it comes before the client's. Default: the raw path below the mount.
            method: Instead of the client's.
            forward_query: Whether the client's query goes along.
            additional_headers: Set by name: what the client sent under a name goes.
            override_headers: Sent instead of all the client's headers.
            override_body: Sent instead of the client's body: bytes, str, or what JSON can
                say; sets content-type if there is none.
            override_host: Host header instead of the destination's.
            timeout: Seconds in all, instead of ``timeouts.total``.

        Returns:
            The answer. Return it from the endpoint, or ``await response.aclose()``.

        Raises:
            ProxyError: There is no answer; the default handler makes it a status.
            ValueError: An argument is not what it must be.
        """
        overrides = overrides_of(
            method=method,
            forward_query=forward_query,
            additional=additional_headers,
            replaced=override_headers,
            body=override_body,
            host=override_host,
            timeout=timeout,
        )
        raw, prefix = _target(request.scope, path)
        response = await self.forward_raw(request, raw, prefix, overrides)
        stack = request.scope.get("fastapi_inner_astack")
        if isinstance(stack, AsyncExitStack):
            # An endpoint need not return it. A proxied route always does.
            stack.push_async_callback(response.aclose)
        return response

    async def forward_raw(
        self,
        request: Request,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None,
        affinity_key: str | None = None,
    ) -> ProxiedResponse:
        """Like ``forward`` with everything worked out; what proxied routes call."""
        cached = None
        if overrides is None or overrides.body is None:
            cached = _take_body(request)
        scope = request.scope
        exchange = Exchange(
            scope,
            request.receive,
            request._send,  # noqa: SLF001  # for early hints, which come before the response
            path,
            prefix,
            overrides,
            self._key(scope, affinity_key),
        )
        try:
            return ProxiedResponse(await self._http.forward(exchange, cached))
        except ClientDisconnected:
            return ProxiedResponse(client_closed_request())

    async def pass_on(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None = None,
    ) -> None:
        """Forward without a ``Request`` or ``Response``, and send the response."""
        key = None if self._read_key is None else self._key(scope, None)
        exchange = Exchange(scope, receive, send, path, prefix, overrides, key)
        try:
            response = await self._http.forward(exchange)
        except ClientDisconnected:
            response = client_closed_request()
        await response(scope, receive, send)

    async def forward_websocket(
        self,
        websocket: WebSocket,
        path: str | None = None,
        *,
        subprotocols: Sequence[str] | None = None,
        forward_query: bool = True,
        additional_headers: HeaderFields | None = None,
        override_headers: HeaderFields | None = None,
        open_timeout: float | None = None,
    ) -> None:
        """Dial a picked destination, accept the client, and tunnel until one side ends.

        The upstream chooses the subprotocol; its refusal reaches the client.

        Args:
            websocket: The client's, not yet accepted.
            path: As in ``forward``.
            subprotocols: Offered instead of the client's.
            forward_query: Whether the client's query goes along.
            additional_headers: Set by name on the handshake.
            override_headers: Sent instead of all the client's headers.
            open_timeout: Seconds for the handshake instead of ``websocket.open_timeout``.

        Raises:
            ProxyError: No destination answered; nothing was sent to the client.
            ValueError: An argument is not what it must be.
        """
        overrides = overrides_of(
            forward_query=forward_query, additional=additional_headers, replaced=override_headers
        )
        raw, prefix = _target(websocket.scope, path)
        await self.tunnel_raw(
            websocket, raw, prefix, overrides, subprotocols=subprotocols, open_timeout=open_timeout
        )

    async def tunnel_raw(
        self,
        websocket: WebSocket,
        path: bytes,
        prefix: bytes,
        overrides: Overrides | None,
        *,
        subprotocols: Sequence[str] | None = None,
        open_timeout: float | None = None,
        affinity_key: str | None = None,
    ) -> None:
        """Like ``forward_websocket`` with everything worked out."""
        message = await websocket.receive()
        if message["type"] != "websocket.connect":
            return
        # Below Starlette's state machine, which costs as much per message as the copying.
        exchange = Exchange(
            websocket.scope,
            websocket._receive,  # noqa: SLF001
            websocket._send,  # noqa: SLF001
            path,
            prefix,
            overrides,
            self._key(websocket.scope, affinity_key),
        )
        await self._websocket.forward(
            exchange, subprotocols=subprotocols, open_timeout=open_timeout
        )

    # -- calling ------------------------------------------------------------------------

    @property
    def client(self) -> httpx.AsyncClient:
        """An httpx client of this upstream: same pool, policy, health, retries and limits.

        Takes relative URLs, or absolute ones below its ``base_url``, ``http://<name>/``; any
        other authority raises ``httpx.UnsupportedProtocol``. Answers are as the upstream
        sent them. Shared by the whole app, so it keeps no cookies, and closing it does
        nothing. What fails raises httpx's exceptions, which are ``ProxyError`` as well.
        """
        return self._assembly.client(self._client_key)

    def lease(self, key: str | None = None) -> AbstractAsyncContextManager[Lease]:
        """Hold a destination for an SDK that brings a client of its own.

        ``async with billing.lease() as lease:`` counts in flight and against the limits
        until its end; ``lease.url`` is where to go. ``lease.failed(error)`` says that the
        destination failed, ``lease.answered()`` that its answer has begun.

        Args:
            key: What the policy ``hash`` keeps together.

        Raises:
            NoAvailableDestination: There is none; ``LimitExceeded`` if all are full.
        """
        given = None if key is None else RequestKey({}, lambda scope: None, key.encode("utf-8"))
        return self._assembly.lease(given)

    # -- the pool -----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The upstream's name."""
        return self._assembly.settings.name

    @property
    def settings(self) -> UpstreamSettings:
        """The settings the upstream was started with."""
        return self._assembly.settings

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """All destinations, in the order of the settings."""
        return self._assembly.pool.destinations

    @property
    def available(self) -> tuple[Destination, ...]:
        """Those that may be picked: healthy, not ejected, not draining."""
        return self._assembly.pool.available

    def pick(self) -> Destination | None:
        """Give the destination that the policy picks now, ``None`` if there is none.

        Counts as a turn of the policy, not as a request. Use ``lease`` to count one.
        """
        destination, full = select(self._assembly.policy, self._assembly.pool)
        self._assembly.supervisor.limits_reached(full)
        return destination

    def peek(self) -> Destination | None:
        """Give the destination that ``pick`` would give now.

        Takes no turn of the policy and reports no limit.
        """
        random = self._assembly.random
        state = random.getstate()
        try:
            return select(copy.copy(self._assembly.policy), self._assembly.pool)[0]
        finally:
            random.setstate(state)

    def drain(self, url: str, *, timeout: float | None = None) -> Awaitable[None]:
        """Send nothing new to a destination, from now on; what it has goes on.

        Args:
            url: Its address, in any equivalent spelling.
            timeout: Seconds that it may take to become empty; tunnels that are still open
                then are closed with 1001. ``None`` lets them be.

        Returns:
            With a timeout, something that may be awaited until the destination is empty or
            the time is over. Draining does not depend on that.

        Raises:
            ValueError: There is no such destination.
        """
        destination = self._find(url)
        self._assembly.supervisor.drain(destination)
        if timeout is None:
            nothing_to_wait_for = asyncio.get_running_loop().create_future()
            nothing_to_wait_for.set_result(None)
            return nothing_to_wait_for
        return self._assembly.own(self._empty(destination, timeout), f"draining {destination.url}")

    def undrain(self, url: str) -> None:
        """Let a drained destination take requests again.

        Raises:
            ValueError: There is no such destination.
        """
        self._assembly.supervisor.undrain(self._find(url))

    def replace_destinations(self, destinations: Destinations) -> None:
        """Make these the destinations, all at once.

        Those that stay keep their connections, counts and health; removed ones take no new
        requests and finish their work.

        Args:
            destinations: Addresses or ``DestinationSettings``.

        Raises:
            ValueError: One of them is not valid; nothing has changed then.
        """
        found = [
            DestinationSettings(url=one) if isinstance(one, str) else one for one in destinations
        ]
        if not found:
            raise ValueError("replace_destinations needs at least one destination")
        if len({one.url for one in found}) != len(found):
            raise ValueError("replace_destinations was given an address twice")
        self._assembly.replace(found)

    def configure_destination(self, url: str, **changes: Unpack[DestinationChanges]) -> None:
        """Change a destination's limits, weight, tier or probe path while it runs.

        Its connections, counts and health stay. What is not named stays as it is; ``None``
        takes a limit away.

        Args:
            url: Its address, in any equivalent spelling.
            **changes: ``max_requests``, ``max_in_flight``, ``weight``, ``tier``,
                ``health_path``, as in ``DestinationSettings``.

        Raises:
            ValueError: There is no such destination, or a value is not valid.
        """
        found = self._find(url)
        changed = changed_destination(found.settings, changes)
        self._assembly.replace(
            changed if one is found else one.settings for one in self.destinations
        )

    @property
    def health(self) -> HealthSettings:
        """How destinations are probed at the moment."""
        return self._assembly.prober.settings

    def configure_health(self, **changes: Unpack[HealthChanges]) -> None:
        """Change how destinations are probed; all are probed anew at once.

        What is not named stays as it is. ``path=None`` turns probes off, and what they said
        is forgotten. Without ``max_requests_window`` the window of ``max_requests`` follows
        the interval.

        Args:
            **changes: ``path``, ``interval``, ``timeout``, ``unhealthy_interval``, ``fall``,
                ``rise``, as in ``HealthSettings``.

        Raises:
            ValueError: A value is not valid, or the policy ``latency`` would lose its probes.
        """
        changed = changed_health(self.health, changes)
        if not changed.enabled and self._assembly.policy.name == "latency":
            raise ValueError("path: the policy latency needs probes")
        self._assembly.configure_health(changed)

    def subscribe(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``listener`` with each change of state of this upstream.

        Args:
            listener: Takes an ``Event``; called in the event loop, so it must not block.

        Returns:
            A function that ends the subscription.
        """
        name = self.name
        return self._assembly.events.subscribe(
            lambda event: listener(event) if event.upstream == name else None
        )

    def status(self) -> UpstreamStatus:
        """Give what the upstream is doing at this moment."""
        assembly = self._assembly
        now = asyncio.get_running_loop().time()
        admission = assembly.admission
        return UpstreamStatus(
            upstream=self.name,
            policy=assembly.policy.name,
            panic=assembly.pool.panic,
            in_flight=sum(one.in_flight for one in self.destinations),
            queued=0 if admission is None else admission.waiting,
            tunnels=self._websocket.open_tunnels,
            tunnel_ends={
                reason.value: count for reason, count in self._websocket.ends.items() if count
            },
            destinations=tuple(
                DestinationStatus(
                    url=one.url,
                    weight=one.weight,
                    tier=one.tier,
                    available=one.available,
                    healthy=one.healthy,
                    ejected_for=(
                        None if one.ejected_until is None else max(0.0, one.ejected_until - now)
                    ),
                    draining=one.draining,
                    in_flight=one.in_flight,
                    requests=one.successes + one.failures,
                    failures=one.failures,
                    latency_ms=one.latency_ms,
                )
                for one in self.destinations
            ),
        )

    def __repr__(self) -> str:
        return f"<Balancer {self.name} {len(self.available)}/{len(self.destinations)} available>"

    async def _empty(self, destination: Destination, timeout: float) -> None:
        """Wait until ``destination`` has nothing in flight; then close what tunnels remain."""
        try:
            async with asyncio.timeout(timeout):
                while destination.in_flight:  # noqa: ASYNC110  # counts tell nobody
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            for tunnel in self._websocket.tunnels(destination):
                tunnel.close(1001, "the destination is drained")

    def _find(self, url: str) -> Destination:
        found = self._assembly.pool.find(url)
        if found is None:
            known = ", ".join(one.url for one in self.destinations)
            raise ValueError(f"{self.name} has no destination {url!r}; it has {known}")
        return found

    def _client_key(self, scope: Scope) -> RequestKey | None:
        return self._key(scope, None)

    def _key(self, scope: Scope, affinity_key: str | None) -> RequestKey | None:
        if self._read_key is None:
            return None
        given = None if affinity_key is None else affinity_key.encode("utf-8")
        return RequestKey(scope, self._read_key, given)


def _target(scope: Scope, path: str | None) -> tuple[bytes, bytes]:
    """The raw path to send, and the mount's for X-Forwarded-Prefix."""
    if path is not None:
        return given_target(path), target_below(scope, "")[1]
    return target_below(scope, "")


def _take_body(request: Request) -> bytes | None:
    """The body if somebody has read it; else mark it as taken, so that nobody waits for it.

    Starlette keeps both facts in private attributes of the ``Request`` that dependencies
    and endpoint share; its own ``BaseHTTPMiddleware`` reads them as well.
    """
    cached: bytes | None = getattr(request, "_body", None)
    if cached is not None:
        return cached
    bears_body = any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in request.scope["headers"]
    )
    if getattr(request, "_stream_consumed", False):
        if bears_body:
            raise RequestBodyConsumed(
                "the request body was read as a stream or form before it was forwarded; read "
                "it with `await request.body()` instead, or give override_body"
            )
        return b""
    if bears_body:
        request._stream_consumed = True  # noqa: SLF001
    elif request.scope.get("http_version", "1.1") in ("1.0", "1.1"):
        request._body = b""  # noqa: SLF001
    return None

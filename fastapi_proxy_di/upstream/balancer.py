"""``Balancer``: the object that ``Depends(Upstream("billing"))`` gives, to use an upstream in code.

Its methods validate their arguments and call the part of the upstream that does the work.
Long because each public method has a docstring for users.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import httpx
from starlette.requests import Request
from starlette.types import Scope
from starlette.websockets import WebSocket

from fastapi_proxy_di.balancing.hash_key import RequestKey
from fastapi_proxy_di.balancing.only_destination import OnlyDestination
from fastapi_proxy_di.balancing.selection import select
from fastapi_proxy_di.client.lease import Lease
from fastapi_proxy_di.errors import InvalidRequest
from fastapi_proxy_di.forwarding.overrides import Overrides, keep_request_id, overrides_of
from fastapi_proxy_di.forwarding.taps import TapFunction
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import (
    Destinations,
    HealthSettings,
    UpstreamSettings,
    read_proxy_settings,
    settings_error,
)
from fastapi_proxy_di.supervision.events import Event
from fastapi_proxy_di.upstream.client_request import Forwarder, exit_stack
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.control import Control, DestinationChanges, HealthChanges
from fastapi_proxy_di.upstream.in_loop import in_loop
from fastapi_proxy_di.upstream.proxied_response import ProxiedResponse
from fastapi_proxy_di.upstream.reloading import prepared_reload
from fastapi_proxy_di.upstream.running import RunningUpstream
from fastapi_proxy_di.upstream.status import UpstreamStatus, status_of
from fastapi_proxy_di.wire.headers import HeaderArgument
from fastapi_proxy_di.wire.targets import (
    PathOutsideMount,
    given_target,
    target_below,
    target_below_mount,
)

if TYPE_CHECKING:
    import httpx2  # an extra

_Result = TypeVar("_Result")


class Balancer:
    """One upstream: its destinations, and ways to send requests to them.

    Endpoints get a balancer by ``Depends(Upstream(name))``, code outside an app by
    ``Balancer.from_settings``. Its coroutines belong to the event loop that it was started in.
    All other members may be used in any thread, so in plain ``def`` endpoints too: those that
    read give a snapshot at once, those that change the upstream wait until the loop has made the
    change.
    """

    def __init__(self, running: RunningUpstream) -> None:
        self._running = running
        self._control = Control(running)
        self.forwarder: Forwarder = running.forwarder

    @classmethod
    @asynccontextmanager
    async def from_settings(cls, settings: UpstreamSettings) -> AsyncIterator[Balancer]:
        """Run an upstream outside any app: scripts, jobs, tests.

        Traces and metrics are as the variables of `ProxySettings` say.

        Args:
            settings: The settings of the upstream.

        Yields:
            The balancer of the upstream, after the first probe of every destination.

        Raises:
            SettingsError: Every fault of `ProxySettings`.
            ValueError: A setting of the upstream has a fault that validation cannot find.
        """
        proxy_settings, faults = read_proxy_settings()
        if proxy_settings is None:
            raise settings_error(faults)
        running = compose(settings, telemetry=Telemetry(proxy_settings.telemetry))
        try:
            await running.start()
            yield cls(running)
        finally:
            await running.aclose()

    # -- forwarding -------------------------------------------------------------------

    async def forward(
        self,
        request: Request,
        path: str | None = None,
        *,
        mount: str | None = None,
        method: str | None = None,
        forward_query: bool = True,
        additional_headers: HeaderArgument | None = None,
        override_headers: HeaderArgument | None = None,
        override_body: Any = None,
        override_host: str | None = None,
        timeout: float | None = None,
        destination: str | None = None,
        tap: TapFunction | None = None,
    ) -> ProxiedResponse:
        """Stream a request to a picked destination and its response back.

        Returns when the head of the response has arrived; the body is streamed when the
        response is sent. If the client has disconnected, the response is an empty 499.

        If this raises a ``ProxyError`` and all that was read of the request body is kept
        (``retries.replay_bytes``), the request may be forwarded again, to another upstream say;
        ``ProxyError.request_sent`` tells whether a byte of it may have left.

        Args:
            request: The client's request.
            path: The path to send, percent-encoded, starting with ``/``; sent unchanged,
                dot segments too, unless they lead above its start. A query in it comes before
                the client's. Default: the raw path below the mount.
            mount: The decoded path that the upstream stands at, e.g. ``f"/{tenant}"`` in an
                endpoint with the path ``/{tenant}/{path:path}``; sent as ``X-Forwarded-Prefix``.
                Default: the server's ``root_path`` alone.
            method: The method to send instead of the client's.
            forward_query: Whether the client's query is sent.
            additional_headers: Headers to set by name; they replace the client's of the same
                name.
            override_headers: Headers to send instead of all the client's.
            override_body: Body to send instead of the client's: bytes, str, or data for JSON;
                sets content-type if there is none.
            override_host: The Host header, instead of the destination's.
            timeout: Seconds for the whole exchange, instead of ``timeouts.total``.
            destination: Where to send the request. A destination of the pool, in any spelling:
                it goes there alone, retries too, and sets no affinity cookie. 503 if that
                destination is draining, full or waits for its first probe, or is ejected or
                unhealthy unless ``when_none_available`` is ``panic``. Or another
                ``http`` or ``https`` address, one that ``allowed_destinations`` allows. Take it
                from data of your own, never from what the client sends. To another address the
                client's ``Cookie`` and ``Authorization`` and the upstream's ``request_headers`` do
                not go, unless ``allowed_destinations.credentials`` is set or the arguments for
                headers have them.
            tap: As for ``proxy_router``: reads the response while it is sent.

        Returns:
            The response. Return it from the endpoint, or ``await response.aclose()``.

        Raises:
            ProxyError: There is no response; the default handler turns the error into one. It is
                a `DestinationNotAllowed` if ``destination`` may not be reached.
            ValueError: An argument is malformed or not allowed.
        """
        overrides = overrides_of(
            method=method,
            forward_query=forward_query,
            additional=additional_headers,
            replaced=override_headers,
            body=override_body,
            host=override_host,
            timeout=timeout,
            path_given=path is not None,
            destination=destination,
            tap=tap,
        )
        keep_request_id(overrides, request.scope)
        raw, prefix = _target(request.scope, path, mount)
        response = await self.forwarder_for(overrides).request(request, raw, prefix, overrides)
        stack = exit_stack(request.scope)
        if stack is not None:
            # Unlike a proxied route, an endpoint need not return the response.
            stack.push_async_callback(response.aclose)
        return response

    async def forward_websocket(
        self,
        websocket: WebSocket,
        path: str | None = None,
        *,
        mount: str | None = None,
        subprotocols: Sequence[str] | None = None,
        forward_query: bool = True,
        additional_headers: HeaderArgument | None = None,
        override_headers: HeaderArgument | None = None,
        open_timeout: float | None = None,
        destination: str | None = None,
    ) -> None:
        """Dial a picked destination, accept the client, and tunnel until one side ends.

        The upstream chooses the subprotocol; its refusal reaches the client.

        Args:
            websocket: The client's WebSocket, not yet accepted.
            path: As in ``forward``.
            mount: As in ``forward``.
            subprotocols: Subprotocols to offer instead of the client's.
            forward_query: Whether the client's query is sent.
            additional_headers: Headers to set by name on the handshake.
            override_headers: Headers to send instead of all the client's.
            open_timeout: Seconds for the handshake instead of ``websocket.open_timeout``.
            destination: As in ``forward``.

        Raises:
            ProxyError: No destination responded; nothing was sent to the client.
            ValueError: An argument is malformed or not allowed.
        """
        overrides = overrides_of(
            forward_query=forward_query,
            additional=additional_headers,
            replaced=override_headers,
            path_given=path is not None,
            destination=destination,
        )
        keep_request_id(overrides, websocket.scope)
        raw, prefix = _target(websocket.scope, path, mount)
        await self.forwarder_for(overrides).websocket(
            websocket, raw, prefix, overrides, subprotocols=subprotocols, open_timeout=open_timeout
        )

    def forwarder_for(self, overrides: Overrides | None) -> Forwarder:
        """Give what forwards a request: to the pool, or to the address of its overrides.

        Raises:
            ValueError: The address is none of the pool's, and the settings allow no others.
        """
        if overrides is None or overrides.destination is None:
            return self.forwarder
        known = self._running.pool.find(overrides.destination)
        if known is None:
            return self._running.for_addresses().forwarder
        overrides.only = known.url
        return self.forwarder

    # -- calling ------------------------------------------------------------------------

    @property
    def client(self) -> httpx.AsyncClient:
        """An httpx client of this upstream: same pool, policy, health, retries and limits.

        URLs are relative, or below the ``base_url`` of the client, ``http://<name>/``; any
        other authority raises ``httpx.UnsupportedProtocol``. Responses are not changed. The
        whole app shares the client, so it keeps no cookies, and closing it does nothing.
        Failures raise exceptions of httpx that are ``ProxyError`` as well.
        """
        return self._running.clients.for_httpx

    @property
    def httpx2_client(self) -> httpx2.AsyncClient:
        """The same as ``client``, as an ``httpx2.AsyncClient``, for SDKs that are built on httpx2.

        Raises:
            ModuleNotFoundError: The extra ``httpx2`` is not installed.
        """
        return self._running.clients.for_httpx2

    def lease(
        self, key: str | None = None, *, destination: str | None = None
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold a destination for an SDK that has its own HTTP client.

        ``async with billing.lease() as lease:`` is counted as in flight and against the limits
        until its end; ``lease.url`` is the address. ``lease.failed(error)`` reports that the
        destination failed, ``lease.answered()`` that its response has begun.

        Args:
            key: The key that the policy ``hash`` hashes.
            destination: The destination or the address to hold, as in ``forward``. The lease
                sends nothing, so what the name of an address leads to is for your client to check.

        Raises:
            NoAvailableDestination: No destination is available; ``LimitExceeded`` if all are
                full.
            DestinationNotAllowed: ``destination`` is not allowed.
            ValueError: The address is none of the pool's, and the settings allow no others.
        """
        if destination is not None:
            known = self._running.pool.find(destination)
            if known is not None:
                return self._running.lease(OnlyDestination({}, known.url))
            return self._running.for_addresses().lease(destination)
        given = None if key is None else RequestKey({}, lambda scope: None, key.encode("utf-8"))
        return self._running.lease(given)

    # -- the pool -----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The upstream's name."""
        return self._running.name

    @property
    def settings(self) -> UpstreamSettings:
        """The current settings: those of the start, or of the last reload."""
        return self._running.settings

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """All destinations, in the order of the settings."""
        return self._running.pool.destinations

    @property
    def available(self) -> tuple[Destination, ...]:
        """The destinations that may be picked: healthy, not ejected, not draining."""
        return self._running.pool.available

    def pick(self) -> Destination | None:
        """Give the destination that the policy picks now, ``None`` if there is none.

        The pick advances the policy but counts no request; ``lease`` counts one. Affinity does
        not apply, because there is no client.
        """
        return self._in_loop(self._pick)

    def _pick(self) -> Destination | None:
        destination, full = select(self._running.rules.policy, self._running.pool)
        self._running.supervisor.limits_reached(full)
        return destination

    def peek(self) -> Destination | None:
        """Give the destination that ``pick`` would give now.

        The policy is not advanced, and no limit is reported.
        """
        return self._in_loop(self._peek)

    def _peek(self) -> Destination | None:
        random = self._running.random
        state = random.getstate()
        try:
            return select(copy.copy(self._running.rules.policy), self._running.pool)[0]
        finally:
            random.setstate(state)

    def drain(self, url: str, *, timeout: float | None = None) -> Awaitable[None]:
        """Send no new requests to a destination; open ones and tunnels go on.

        Args:
            url: The address of the destination, in any equivalent spelling.
            timeout: Seconds until tunnels that are still open are closed with 1001; ``None``
                closes none.

        Returns:
            With a timeout an awaitable, which ends when the destination is empty or the time
            has passed. The destination drains even if it is not awaited; a thread cannot
            await it.

        Raises:
            ValueError: There is no such destination.
        """
        return self._in_loop(lambda: self._control.drain(url, timeout))

    def undrain(self, url: str) -> None:
        """Let a drained destination take requests again.

        Raises:
            ValueError: There is no such destination.
        """
        self._in_loop(lambda: self._control.undrain(url))

    def readmit(self, url: str) -> None:
        """End the ejection of a destination at once, also one that ``Retry-After`` asked for.

        Nothing happens if the destination is not ejected; failed probes still count.

        Args:
            url: The address of the destination, in any equivalent spelling.

        Raises:
            ValueError: There is no such destination.
        """
        self._in_loop(lambda: self._control.readmit(url))

    async def probe(self, url: str) -> bool:
        """Probe a destination now, besides its regular probes.

        The result counts like that of a regular probe.

        Args:
            url: The address of the destination, in any equivalent spelling.

        Returns:
            Whether the probe was good.

        Raises:
            ValueError: There is no such destination, or the upstream has no probes.
        """
        return await self._control.probe(url)

    def replace_destinations(self, destinations: Destinations) -> None:
        """Replace all destinations at once.

        Destinations that stay keep their connections, counts and health; removed ones take no new
        requests and finish the ones they have. With a health path, added ones are probed at once
        and get no request before, unless nothing else is available. A source that stays keeps what
        it has found; the destinations stay until each new source has given its first list or has
        failed, for ten seconds at most.

        Args:
            destinations: Addresses, sources or ``DestinationSettings``.

        Raises:
            ValueError: One of them is not valid; then nothing is changed.
        """
        self._in_loop(lambda: self._control.replace_destinations(destinations))

    def configure_destination(self, url: str, **changes: Unpack[DestinationChanges]) -> None:
        """Change a destination's limits, weight, tier or probe path while it runs.

        Its connections, counts and health stay, and settings that are not given stay. ``None``
        removes a limit. The changes of a destination that a source found hold until the source no
        longer finds its address; what holds for all that it finds is set by
        ``replace_destinations``.

        Args:
            url: The address of the destination, in any equivalent spelling.
            **changes: ``max_requests``, ``max_in_flight``, ``weight``, ``tier``,
                ``health_path``, as in ``DestinationSettings``.

        Raises:
            ValueError: There is no such destination, or a value is not valid.
        """
        self._in_loop(lambda: self._control.configure_destination(url, changes))

    async def reload(self, settings: UpstreamSettings) -> tuple[str, ...]:
        """Change the settings while the upstream runs; ``reload_upstreams`` reads those of an app.

        Requests under way end by the settings that they began with. Destinations that stay keep
        their connections, counts and health. Certificates are read again, also if their settings
        are the same. What code has changed, as by ``configure_health``, stays unless its setting
        differs from before. Reloads of one upstream run one after the other.

        Args:
            settings: The new settings, with the same name.

        Returns:
            The fields that have changed, such as ``timeouts.connect``.

        Raises:
            SettingsError: The settings have faults; then nothing is changed.
            UpstreamClosed: The upstream is closed.
        """
        running = self._running
        async with prepared_reload({running: settings}) as prepared:
            running.refuse_if_closed()
            if prepared.faults:
                prepared.failed(prepared.faults)
                raise settings_error(prepared.faults)
            return prepared.apply()[running.name]

    @property
    def health(self) -> HealthSettings:
        """The current settings of probes."""
        return self._running.prober.settings

    def configure_health(self, **changes: Unpack[HealthChanges]) -> None:
        """Change how destinations are probed; all are probed anew at once.

        Settings that are not given stay. ``path=None`` turns probes off and makes all destinations
        healthy. If the setting ``max_requests_window`` is not set, the window of ``max_requests``
        follows the interval.

        Args:
            **changes: ``path``, ``interval``, ``timeout``, ``unhealthy_interval``, ``fall``,
                ``rise``, as in ``HealthSettings``.

        Raises:
            ValueError: A value is not valid, or the policy ``latency`` would lose its probes.
        """
        self._in_loop(lambda: self._control.configure_health(changes))

    def subscribe(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``listener`` with each change of state of this upstream, until it is closed.

        Args:
            listener: A function of an ``Event``; called in the event loop, so it must not block.

        Returns:
            A function that ends the subscription.
        """
        unsubscribe = self._in_loop(lambda: self._running.subscribe(listener))
        return lambda: self._in_loop(unsubscribe)

    def status(self) -> UpstreamStatus:
        """Give the state of the upstream at this moment."""
        return status_of(self._running)

    def _in_loop(self, function: Callable[[], _Result]) -> _Result:
        return in_loop(self._running.loop, function)

    def __repr__(self) -> str:
        return f"<Balancer {self.name} {len(self.available)}/{len(self.destinations)} available>"


def _target(scope: Scope, path: str | None, mount: str | None) -> tuple[bytes, bytes]:
    """Return the raw path to send, and the raw path of the mount for X-Forwarded-Prefix."""
    try:
        if mount is None:
            below, prefix = target_below(scope, "")
        else:
            below, prefix = target_below_mount(scope, mount)
    except PathOutsideMount:
        raise InvalidRequest("the path does not lie below the mount segment by segment") from None
    return (below if path is None else given_target(path)), prefix

"""The destinations of a stand-in: transports to an app, a function or a script of steps.

The transports are built on the transport to in-process apps, so a request takes all steps of a
real one except the socket.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, cast

import httpx
from starlette.types import Message, Receive, Scope, Send

from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.testing.received import Received
from fastapi_proxy_di.testing.steps import PlaysApp, Refusal, Step, Turn, refused, reply
from fastapi_proxy_di.transport.asgi.exchange import AsgiExchange
from fastapi_proxy_di.transport.asgi.inner_app import InnerApp
from fastapi_proxy_di.transport.asgi.transport import AsgiTransport
from fastapi_proxy_di.transport.dialling.dialler import Guard
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.transport.protocol import OutgoingRequest, Transport
from fastapi_proxy_di.wire.addresses import Address

__all__ = ["Handler", "Place", "Source", "StandInFactory"]

Handler: TypeAlias = Callable[[Received], Any]
"""A function of the received request; gives a step, or the content of a 200. May be async."""

Source: TypeAlias = PlaysApp | Handler | Step | Sequence[Step]
"""How a destination responds: an ASGI app, a function, a step, or steps one by one."""

_TURN: Final = "fastapi_proxy_di.turn"
_PROBE: Final = (b"user-agent", b"fastapi-proxy-di-probe")
_ASGI_ARGUMENTS: Final = 3


class Place:
    """One destination of a stand-in, shared by all event loops.

    Attributes:
        name: Name of the destination, as the test wrote it.
        healthy: Whether probes succeed.

    Args:
        name: Name of the destination, as the test wrote it.
        source: Makes the responses.
        log: The list that records of attempts are appended to.

    Raises:
        TypeError: ``source`` is not a ``Source``.
    """

    def __init__(self, name: str, source: Source, log: list[Received]) -> None:
        self.name: str = name
        self.healthy: bool = True
        self._log = log
        self._app: PlaysApp | None = None
        self._handler: Handler | None = None
        self._script: Sequence[Step] = ()
        self._played = 0
        if isinstance(source, Sequence) and source and all(map(_is_step, source)):
            self._script = source
        elif _is_step(source):
            self._script = (cast("Step", source),)
        elif callable(source):
            if _takes_asgi(source):
                self._app = cast("PlaysApp", source)
            else:
                self._handler = cast("Handler", source)
        else:
            raise TypeError(
                f"{name}: {source!r} is not an ASGI app, a function, a step, or a list of steps; "
                "for a response write reply(...), a mapping names destinations"
            )

    def begin(self, request: OutgoingRequest, name: str) -> Play:
        """Record a request, and choose the step for it.

        Args:
            request: The request.
            name: Name of the destination, for the record.

        Raises:
            ProxyError: The connection is refused.
        """
        raw_path, _, query = request.target.partition(b"?")
        received = Received(
            name,
            request.method.decode("ascii"),
            raw_path.decode("ascii"),
            query.decode("ascii"),
            httpx.Headers(request.headers),
        )
        if _PROBE in request.headers:
            return Play(received, reply(b"", 200 if self.healthy else 503))
        self._log.append(received)
        step: Step | None = None
        if self._script:
            step = self._script[min(self._played, len(self._script) - 1)]
            self._played += 1
        if isinstance(step, Refusal):
            raise refused()
        return Play(received, step)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request as an ASGI app."""
        if scope["type"] == "lifespan":
            if self._app is not None:
                await self._app(scope, receive, send)
            return
        play: Play = scope.pop(_TURN)
        received = play.received

        async def recording() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                text: str | None = message.get("text")
                received.messages.append(message["bytes"] if text is None else text)
            return message

        turn = Turn(scope, recording, send, received, play.fail)
        if play.step is not None:
            await play.step.play(turn)
        elif self._app is not None:
            await self._app(scope, recording, send)
        else:
            await turn.read()
            await (await self._ask(received)).play(turn)

    async def _ask(self, received: Received) -> Step:
        assert self._handler is not None
        given = self._handler(received)
        if inspect.isawaitable(given):
            given = await given
        return cast("Step", given) if _is_step(given) else reply(given)


class Play:
    """One request to a stand-in, with the step that responds to it.

    Attributes:
        received: The record of the request.
        step: The step; ``None`` if the app or function responds.
        exchange: The exchange that carries the request.
    """

    __slots__ = ("exchange", "received", "step")

    def __init__(self, received: Received, step: Step | None) -> None:
        self.received: Received = received
        self.step: Step | None = step
        self.exchange: AsgiExchange

    def fail(self, error: BaseException) -> None:
        """End the exchange with an error."""
        self.exchange.fail(error)


class StandInTransport(AsgiTransport):
    """A `Transport` to one place, recorded by the name of a destination."""

    def __init__(self, place: Place, name: str, address: Address, upstream: str) -> None:
        app = InnerApp(f"stand-in:{name}", place.app, upstream=upstream)
        super().__init__(app, address)
        self._place = place
        self._name = name
        self._play: Play

    def reuse(self, request: OutgoingRequest, body: bytes, *, more: bool) -> AsgiExchange | None:
        return None  # each attempt goes through `start`, where it may be refused

    async def start(self, request: OutgoingRequest, body: bytes, *, more: bool) -> AsgiExchange:
        await self.probe()
        # `_scope` reads `self._play`, which is that of this request, as there is no await between.
        self._play = play = self._place.begin(request, self._name)
        play.exchange = exchange = self._begin(request, body, more)
        play.received.body = body
        offer = exchange.offer

        def recording(data: bytes) -> bool:
            play.received.body += data
            return offer(data)

        exchange.offer = recording  # type: ignore[method-assign]
        return exchange

    def _scope(self, request: OutgoingRequest) -> dict[str, Any]:
        return {**super()._scope(request), _TURN: self._play}


class StandInFactory(TransportFactory):
    """Makes transports to places instead of sockets.

    Args:
        settings: Settings of the upstream.
        places: The places by address.
        single: The place of all dynamic destinations; ``None`` if each has its own among
            ``places``.
    """

    def __init__(
        self, settings: UpstreamSettings, places: dict[str, Place], single: Place | None = None
    ) -> None:
        super().__init__(settings)
        self._places = places
        self._single = single
        self._elsewhere: Place | None = None
        self._made: list[StandInTransport] = []

    def make(self, address: Address) -> Transport:
        """Give a transport to the place at ``address``.

        Raises:
            ValueError: The test named no destination of this address.
        """
        place = self._places.get(address.url)
        name = address.url if place is None else place.name
        place = place or self._elsewhere
        if place is None:
            known = ", ".join(self._places)
            raise ValueError(
                f"the stand-in for {self._settings.name} has no destination {name}; it has {known}."
                " Give it a source by that name"
            )
        transport = StandInTransport(place, name, address, self._settings.name)
        self._made.append(transport)
        return transport

    def guarded(self, settings: UpstreamSettings, guard: Guard) -> TransportFactory:
        """Give the factory for dynamic destinations, which are destinations of the test too."""
        factory = StandInFactory(settings, self._places, self._single)
        factory._elsewhere = self._single
        return factory

    def replaces(self, other: TransportFactory, address: Address) -> bool:
        """False: no setting changes how a place is reached."""
        return False

    async def start(self) -> None:
        """Run the lifespan startup of each app."""
        for transport in self._made:
            await transport.probe()


def _is_step(value: object) -> bool:
    return inspect.iscoroutinefunction(getattr(value, "play", None))


def _takes_asgi(source: Callable[..., object]) -> bool:
    positional = [
        parameter
        for parameter in inspect.signature(source).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    return len(positional) == _ASGI_ARGUMENTS

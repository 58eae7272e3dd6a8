"""Taps: code of the app that reads responses while they pass, and changes no byte of them.

A tap is given as a function, which is checked where the router is made. `Tapping` is the checked
function; it makes the tap of one exchange, an `OpenTap`, which calls the code of the app so that
nothing it does harms the exchange. What feeds it is in ``tapped_response``.

What a client chooses may be in the message of any exception, so the message is logged at DEBUG
only.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from fastapi_proxy_di.errors import ProxyError
from fastapi_proxy_di.transforms.headers import HeaderFields
from fastapi_proxy_di.transforms.json_body import JsonBody
from fastapi_proxy_di.transforms.views import InboundRequest
from fastapi_proxy_di.wire.event_stream import SseEvent

if TYPE_CHECKING:
    from fastapi_proxy_di.forwarding.exchange import Exchange
    from fastapi_proxy_di.forwarding.usage import Usage

__all__ = [
    "ChangesRequest",
    "EndedBy",
    "OpenTap",
    "Tap",
    "TapExchange",
    "TapFunction",
    "Tapping",
    "ended_by",
    "tapping_of",
]

SLOW_SECONDS: Final = 0.005
"""Seconds of one call of a tap above which it is warned about."""

EndedBy: TypeAlias = Literal["complete", "client", "destination", "proxy"]
"""What ended an exchange: the end of the response, or the side that ended it early."""

_logger = logging.getLogger("fastapi_proxy_di.taps")

_warned: Final[set[str]] = set()
"""Names of the taps that were warned about, so that each is once in a process."""


class Tap:
    """Reads one response while it passes; derive from it, and override what you need.

    The methods are called in the event loop while the response waits, so they must be quick. They
    are synchronous.
    """

    def event(self, event: SseEvent) -> None:
        """Take an event of an event stream; called once for each, when its last byte has come.

        Args:
            event: The event, which has data. An event over 1 MiB is left out.
        """

    def answer(self, body: JsonBody) -> None:
        """Take a response that is JSON and no stream, of 1 MiB at most; called once.

        Args:
            body: The JSON value.
        """

    def end(self, outcome: EndedBy) -> None:
        """Take the end of the exchange; called exactly once, however it ends.

        Args:
            outcome: ``complete`` if the client got the whole response; else which side broke it
                off: ``client``, ``destination`` or ``proxy``.
        """


class TapExchange:
    """What a tap may know of its exchange, read-only but for ``usage``.

    Attributes:
        upstream: Name of the upstream.
        destination: Address of the destination that responds.
        request: The client's request, with ``scope``, where dependencies leave what they know.
        status: Status of the destination's response.
        headers: Headers of the destination's response.
    """

    __slots__ = ("_exchange", "destination", "headers", "request", "status", "upstream")

    def __init__(self, upstream: str, exchange: Exchange) -> None:
        response = exchange.response
        self._exchange = exchange
        self.upstream: str = upstream
        self.destination: str = exchange.destination.url
        self.request: InboundRequest = InboundRequest(
            exchange.scope, exchange.path, exchange.prefix
        )
        self.status: int = response.status
        self.headers: HeaderFields = HeaderFields(response.headers)

    @property
    def request_bytes(self) -> int:
        """Bytes of the body of the client's request that were read so far."""
        body = self._exchange.body
        return 0 if body is None else body.size

    @property
    def usage(self) -> Usage | None:
        """What a language model has used; a tap sets it for the access record and the span."""
        return self._exchange.usage

    @usage.setter
    def usage(self, usage: Usage | None) -> None:
        self._exchange.usage = usage


class ChangesRequest:
    """A function that makes taps, and changes the JSON bodies of requests before they are sent."""

    def changed(self, target: bytes, content: bytes) -> bytes | None:
        """Give another body for a request, ``None`` to leave it as it is; must not raise.

        Args:
            target: The raw path that is sent.
            content: The body.
        """
        raise NotImplementedError


TapFunction: TypeAlias = (
    Callable[[TapExchange], Tap | None] | Callable[[SseEvent, TapExchange], object]
)
"""A function that gives the tap of an exchange, ``None`` for none; or one that takes an event."""


class _EventTap:
    """The tap of a plain function of an event."""

    __slots__ = ("_exchange", "_function")

    def __init__(self, function: Callable[..., object], exchange: TapExchange) -> None:
        self._function = function
        self._exchange = exchange

    def event(self, event: SseEvent) -> None:
        self._function(event, self._exchange)


class Tapping:
    """A checked function that makes taps.

    Args:
        given: The function, as it was given.
        make: Gives the tap of an exchange.

    Attributes:
        given: The function, as it was given.
        name: Its name, for logs.
        changes: Changes the bodies of requests, ``None`` for not.
    """

    __slots__ = ("_make", "changes", "given", "name")

    def __init__(self, given: TapFunction, make: Callable[[TapExchange], Any]) -> None:
        self.given: Final = given
        self.name: Final = _name(given)
        function: Any = given
        self.changes: Final[ChangesRequest | None] = (
            function if isinstance(function, ChangesRequest) else None
        )
        self._make: Final = make

    def open(self, upstream: str, exchange: Exchange) -> OpenTap | None:
        """Make the tap of an exchange whose response has its head, ``None`` if there is none."""
        tap = OpenTap(self.name, upstream)
        tap.make(self._make, TapExchange(upstream, exchange))
        return None if tap.is_closed else tap


class OpenTap:
    """The tap of one exchange; its methods do not raise.

    Args:
        name: Name of the tap, for logs.
        upstream: Name of the upstream.

    Attributes:
        event: Takes an event; ``None`` if the tap takes none, or no more.
        answer: Takes a JSON value; ``None`` if the tap takes none, or no more.
    """

    __slots__ = ("_end", "_failed", "_name", "_upstream", "answer", "event")

    def __init__(self, name: str, upstream: str) -> None:
        self.event: Callable[[SseEvent], object] | None = None
        self.answer: Callable[[Any], object] | None = None
        self._end: Callable[[EndedBy], object] | None = None
        self._name: Final = name
        self._upstream: Final = upstream
        self._failed = False

    @property
    def is_closed(self) -> bool:
        """Whether the tap takes nothing at all."""
        return self.event is None and self.answer is None and self._end is None

    def make(self, make: Callable[[TapExchange], Any], exchange: TapExchange) -> None:
        """Let the code of the app make its tap."""
        self.call(self._take, make, exchange)

    def _take(self, make: Callable[[TapExchange], Any], exchange: TapExchange) -> None:
        tap = make(exchange)
        if tap is None:
            return
        methods = [_method(tap, name) for name in ("event", "answer", "end")]
        if all(method is None for method in methods):
            raise TypeError(f"it gave a {type(tap).__name__}, which has no method of a Tap")
        self.event, self.answer, self._end = methods

    def end(self, failure: BaseException | None) -> None:
        """Take the end of the exchange; ``failure`` is what ended it early."""
        end, self._end = self._end, None
        self.event = self.answer = None
        if end is not None:
            self.call(end, ended_by(failure))

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call code of the app; after an exception only its end is called."""
        began = perf_counter()
        raised = None
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001  # a tap harms no exchange
            raised = error
        seconds = perf_counter() - began
        if raised is not None:
            self.event = self.answer = None
            self._raised(raised)
        if seconds > SLOW_SECONDS and self._name not in _warned:
            _warned.add(self._name)
            _logger.warning(
                "%s: the tap %s took %.0f ms for one call, in which no other request went on;"
                " leave slow work to a task or a thread (this is logged once)",
                self._upstream,
                self._name,
                seconds * 1000,
            )

    def _raised(self, error: Exception) -> None:
        if self._failed:
            return
        self._failed = True
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        code = None if trace is None else trace.tb_frame.f_code
        _logger.error(
            "%s: the tap %s raised %s (%s, line %s); it gets no more of this response. DEBUG has"
            " the traceback",
            self._upstream,
            self._name,
            type(error).__name__,
            None if code is None else code.co_filename,
            None if trace is None else trace.tb_lineno,
        )
        _logger.debug("%s: the tap %s raised", self._upstream, self._name, exc_info=error)


def tapping_of(tap: TapFunction | None) -> Tapping | None:
    """Check a tap; ``None`` if there is none.

    Args:
        tap: As given to ``proxy_router(tap=...)``.

    Raises:
        ValueError: It is no function, a coroutine function, or takes other arguments.
    """
    if tap is None:
        return None
    if not callable(tap):
        raise ValueError(f"tap: {tap!r} is no function")  # noqa: TRY004 - a fault as the others
    made = [getattr(tap, name, None) for name in ("event", "answer", "end")]
    call = None if inspect.isroutine(tap) else type(tap).__call__
    if any(map(_is_async, (tap, call, *(made if inspect.isclass(tap) else ())))):
        raise ValueError(
            f"tap: {_name(tap)} is async, taps are not; a tap may start a task for slow work"
        )
    if _takes(tap, 1):
        return Tapping(tap, cast("Callable[[TapExchange], Tap | None]", tap))
    if _takes(tap, 2):
        return Tapping(tap, lambda exchange: _EventTap(tap, exchange))
    raise ValueError(
        f"tap: {_name(tap)} takes neither (exchange), to return a Tap, nor (event, exchange)"
    )


def ended_by(failure: BaseException | None) -> EndedBy:
    """Tell what ended an exchange, given what ended it early or ``None``."""
    if failure is None:
        return "complete"
    if isinstance(failure, ProxyError):
        side: EndedBy = failure.failure.side.value
        return side
    if isinstance(failure, OSError):  # from the server's send: the client has disconnected
        return "client"
    return "proxy"


def _method(tap: Any, name: str) -> Callable[..., object] | None:
    """Give a method of a tap, ``None`` if the tap does not have it or has not overridden it."""
    method: Callable[..., object] | None = getattr(tap, name, None)
    if method is None or getattr(type(tap), name, None) is getattr(Tap, name):
        return None
    if _is_async(method):
        raise TypeError("a method of it is async, taps are not")
    return method


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _name(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"

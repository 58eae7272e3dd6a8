"""Looks up the addresses of names, in daemon threads of its own.

``socket.getaddrinfo`` reads ``/etc/hosts`` and ``resolv.conf`` as every program of the machine
does, but it blocks, cannot be cancelled, and takes half a minute when a name server is silent.
The loop's own thread pool would then be full for everybody. So each look-up has a daemon thread:
the process ends without waiting for it, and a look-up that is slow no longer counts against the
number that run at once. All dials to one name share one look-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final
from weakref import WeakKeyDictionary

from fastapi_proxy_di.transport.dialling.known_name import AddressInfo, KnownName

__all__ = ["Resolver", "numeric_addresses", "resolver_of"]

MAX_RUNNING: Final = 8
"""Look-ups that run at once; further ones wait for their turn."""
SLOW_SECONDS: Final = 0.5
"""How long a look-up counts against ``MAX_RUNNING``, if its timeout is not shorter. Sixty names
that hang delay another one by four seconds at most, which is less than ``connect`` by default."""
MAX_ABANDONED: Final = 64
"""Threads whose look-up no longer counts; with more of them, look-ups fail at once."""
MAX_NAMES: Final = 1024
"""Names whose results are kept; the name that was looked up first goes first."""
STALE_AFTER_SECONDS: Final = 0.5
"""How long a dial waits for a look-up while it has addresses that are stale."""
RENEW_SECONDS: Final = 30.0
"""When a look-up that still runs is started anew. glibc gives up on three silent name servers
after 30 seconds, so a name has at most two threads."""

_Name = tuple[str, int]
_Result = tuple[AddressInfo, ...] | OSError


class _LookUp:
    """One look-up under way, with the future that all its waiters share."""

    __slots__ = ("abandoned", "begun", "name", "result", "timer")

    def __init__(self, name: _Name, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self.name: Final = name
        self.begun: Final = now
        # Always set to a value: asyncio would log an exception that no dial waits for.
        self.result: Final[asyncio.Future[_Result]] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None
        self.abandoned = False


class Resolver:
    """Looks up names for all upstreams of one event loop.

    Attributes:
        running: Number of look-ups that count against ``MAX_RUNNING``.
        abandoned: Number of look-ups that no longer count and have not ended.

    Args:
        clock: The monotonic clock that results age by.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.running: int = 0
        self.abandoned: int = 0
        self._clock = clock
        self._known: dict[_Name, KnownName] = {}
        self._under_way: dict[_Name, _LookUp] = {}
        self._queued: deque[tuple[_LookUp, float]] = deque()

    async def resolve(self, host: str, port: int, timeout: float) -> tuple[AddressInfo, ...]:
        """Give the addresses of a name; at least one.

        Args:
            host: The name.
            port: The port that the addresses shall have.
            timeout: Seconds that the look-up may take.

        Raises:
            TimeoutError: There is no result in time.
            socket.gaierror: The name does not exist, or the look-up failed.
            OSError: This process has no thread or socket for a look-up.
        """
        name = (host, port)
        now = self._clock()
        known = self._known.get(name)
        if known is None:
            known = self._remember(name)
        if addresses := known.fresh(now):
            return addresses
        failure: OSError | None = known.failure(now)
        if failure is None:
            look_up = self._under_way.get(name)
            if look_up is None or now - look_up.begun > RENEW_SECONDS:
                look_up = self._begin(name, timeout, now)
            wait = timeout
            if known.stale(now):
                wait = min(timeout, look_up.begun + STALE_AFTER_SECONDS - now)
            if wait > 0:
                await asyncio.wait((look_up.result,), timeout=wait)
            if look_up.result.done():
                result = look_up.result.result()
                if not isinstance(result, OSError):
                    return result
                failure = result
        if addresses := known.stale(self._clock()):
            return addresses
        if failure is None:
            raise TimeoutError
        raise _copy(failure)

    def _remember(self, name: _Name) -> KnownName:
        if len(self._known) >= MAX_NAMES:
            del self._known[next(iter(self._known))]
        known = self._known[name] = KnownName()
        return known

    def _begin(self, name: _Name, timeout: float, now: float) -> _LookUp:
        loop = asyncio.get_running_loop()
        look_up = self._under_way[name] = _LookUp(name, loop, now)
        if self.running < MAX_RUNNING:
            self._start(look_up, timeout, loop)
        else:
            self._queued.append((look_up, timeout))
        return look_up

    def _start(self, look_up: _LookUp, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        self.running += 1
        host, port = look_up.name

        def run() -> None:
            result = _look_up(host, port)
            with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(self._ended, look_up, result)

        try:
            if self.abandoned >= MAX_ABANDONED:
                raise RuntimeError(f"{MAX_ABANDONED} look-ups hang")
            threading.Thread(target=run, name=f"resolve {host}", daemon=True).start()
        except RuntimeError as error:  # or the process may have no further thread
            loop.call_soon(self._ended, look_up, OSError(errno.ENOMEM, str(error)))
            return
        look_up.timer = loop.call_later(min(timeout, SLOW_SECONDS), self._abandon, look_up)

    def _abandon(self, look_up: _LookUp) -> None:
        """Let the look-up run on, but start others in its place."""
        look_up.abandoned = True
        self.abandoned += 1
        self._leave_running()

    def _ended(self, look_up: _LookUp, result: _Result) -> None:
        now = self._clock()
        known = self._known.get(look_up.name)
        if known is not None:
            if not isinstance(result, OSError):
                known.resolved(result, now)
            elif self._under_way.get(look_up.name) is look_up:
                known.failed(result, now)
        if self._under_way.get(look_up.name) is look_up:
            del self._under_way[look_up.name]
        if look_up.timer is not None:
            look_up.timer.cancel()
        look_up.result.set_result(result)
        if look_up.abandoned:
            self.abandoned -= 1
        else:
            self._leave_running()

    def _leave_running(self) -> None:
        self.running -= 1
        if self._queued:
            look_up, timeout = self._queued.popleft()
            self._start(look_up, timeout, look_up.result.get_loop())


_resolvers: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Resolver]] = WeakKeyDictionary()


def resolver_of(loop: asyncio.AbstractEventLoop) -> Resolver:
    """Give the resolver that all upstreams of ``loop`` share."""
    resolver = _resolvers.get(loop)
    if resolver is None:
        resolver = _resolvers[loop] = Resolver()
    return resolver


def numeric_addresses(host: str, port: int) -> tuple[AddressInfo, ...]:
    """Give the address of a literal IP address, which needs no look-up; empty for a name."""
    try:
        return tuple(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        )
    except (OSError, UnicodeError):
        return ()


def _look_up(host: str, port: int) -> _Result:
    try:
        return tuple(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except UnicodeError:  # a label that no name server can be asked for
        return socket.gaierror(socket.EAI_NONAME, "not a valid name")
    except OSError as error:
        return error


def _copy(failure: OSError) -> OSError:
    """Copy an error that several waiters raise, because each raise adds a traceback."""
    return type(failure)(*failure.args)

"""Happy Eyeballs over all addresses of a name (RFC 8305)."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Sequence

import pytest

from fastapi_proxy_di.transport.dialling.known_name import AddressInfo
from fastapi_proxy_di.transport.dialling.race import SHORTAGES, connect_first, decisive
from fastapi_proxy_di.transport.dialling.resolver import numeric_addresses
from tests.support.servers import blackhole, dead_port
from tests.transport.loops import on_every_loop


def listener(host: str = "127.0.0.1") -> socket.socket:
    """A socket whose kernel accepts connections."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


def at(host: str, port: int) -> AddressInfo:
    """The address as ``getaddrinfo`` gives it."""
    return numeric_addresses(host, port)[0]


async def connected_port(addresses: Sequence[AddressInfo]) -> int:
    """Run the race, and give the port of the winner."""
    sock = await connect_first(addresses, [])
    with sock:
        port: int = sock.getpeername()[1]
        return port


@on_every_loop
async def test_silent_address_costs_a_quarter_of_a_second() -> None:
    """The second address is tried while the first one still says nothing."""
    loop = asyncio.get_running_loop()
    with blackhole() as silent, listener("::1") as alive:
        port = alive.getsockname()[1]
        began = loop.time()
        won = await connected_port([at("127.0.0.1", silent), at("::1", port)])
        took = loop.time() - began

    assert won == port
    assert 0.2 < took < 20


@on_every_loop
async def test_refused_address_costs_nothing() -> None:
    """The next address is tried at once, however many there are."""
    with listener() as alive:
        port = alive.getsockname()[1]
        refused = [at("127.0.0.1", dead_port()), at("::1", dead_port())] * 5

        assert await connected_port([*refused, at("127.0.0.1", port)]) == port


@on_every_loop
async def test_families_take_turns() -> None:
    """Two silent addresses of one family do not come before the first of the other."""
    with blackhole() as silent, listener("::1") as alive:
        port = alive.getsockname()[1]
        slow = at("127.0.0.1", silent)
        async with asyncio.timeout(20):
            assert await connected_port([slow] * 100 + [at("::1", port)]) == port


@on_every_loop
async def test_socket_keeps_tcp_alive() -> None:
    """A destination that vanished without a word is noticed by the kernel."""
    with listener() as alive:
        sock = await connect_first([at("127.0.0.1", alive.getsockname()[1])], [])
        with sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@on_every_loop
async def test_failure_of_each_address_is_kept() -> None:
    """Also of those that failed while the others are still silent."""
    failures: list[OSError] = []
    with blackhole() as silent:
        addresses = [at("127.0.0.1", dead_port()), at("127.0.0.1", silent)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await connect_first(addresses, failures)

    assert [type(failure) for failure in failures] == [ConnectionRefusedError]


@on_every_loop
async def test_socket_that_cannot_be_made_is_a_failure() -> None:
    """The process has no descriptor left."""
    failures: list[OSError] = []
    with listener() as alive:
        address = at("127.0.0.1", alive.getsockname()[1])
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(OSError, match="files"):
                await connect_first([address], failures)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert [failure.errno for failure in failures] == [errno.EMFILE]


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
TIMED_OUT = TimeoutError(errno.ETIMEDOUT, "timed out")
UNREACHABLE = OSError(errno.ENETUNREACH, "unreachable")
NO_ADDRESS = OSError(errno.EADDRNOTAVAIL, "cannot assign the address")
NO_FILES = OSError(errno.EMFILE, "too many open files")


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([], None),
        ([TIMED_OUT, UNREACHABLE], TIMED_OUT),
        ([TIMED_OUT, REFUSED], REFUSED),
        ([REFUSED, NO_FILES], NO_FILES),
        ([NO_ADDRESS, REFUSED], REFUSED),
        ([NO_ADDRESS, UNREACHABLE], UNREACHABLE),
        ([NO_ADDRESS, NO_ADDRESS], NO_ADDRESS),
    ],
)
def test_one_failure_is_decisive(failures: list[OSError], expected: OSError | None) -> None:
    """Our own shortage, then a refusal, then the first failure."""
    assert decisive(failures) is expected
    assert NO_ADDRESS.errno in SHORTAGES

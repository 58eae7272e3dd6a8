"""The sockets of look-ups: no threads, and none left open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import dns.message
import pytest
import uvloop

from fastapi_proxy_di.discovery.dns import DnsServers
from fastapi_proxy_di.discovery.dns_sockets import connect
from fastapi_proxy_di.discovery.found import Found, LookupFailed
from fastapi_proxy_di.discovery.name_server import NameServer
from fastapi_proxy_di.discovery.names import Names
from fastapi_proxy_di.settings.nameservers import parse_nameserver
from tests.support.dns_servers import reply, scripted_dns
from tests.support.servers import blackhole

_RECORD = "api.internal. 30 IN A 10.0.0.1"


def _open_sockets() -> set[int]:
    """Give the inodes of the sockets that this process has."""
    inodes = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("socket:"):
                inodes.add(int(target[8:-1]))
    return inodes


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a UDP port that takes packets and never responds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{mute.getsockname()[1]}"


@pytest.fixture
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a look-up fail that uses a thread or the look-ups of the loop or of ``socket``."""
    for name in ("run_in_executor", "getaddrinfo"):
        monkeypatch.setattr(asyncio.BaseEventLoop, name, None)
    monkeypatch.setattr(socket, "getaddrinfo", None)


@pytest.mark.usefixtures("_no_threads")
async def test_fifty_silent_look_ups_block_neither_loop_nor_threads(silent: str) -> None:
    """A heartbeat goes on beside them, and cancelled ones leave no socket."""
    threads, sockets = threading.active_count(), _open_sockets()
    names = Names((silent,), family="both", timeout=60.0)
    look_ups = [asyncio.create_task(names.addresses(f"n{number}.internal")) for number in range(50)]

    for _ in range(100):
        await asyncio.sleep(0.001)
    during = (threading.active_count(), len(_open_sockets() - sockets))
    pending = [not one.done() for one in look_ups]
    for one in look_ups:
        one.cancel()
    results = await asyncio.gather(*look_ups, return_exceptions=True)

    assert pending == [True] * 50
    assert during == (threads, 100)
    assert {type(one) for one in results} == {asyncio.CancelledError}
    assert _open_sockets() - sockets == set()


@pytest.mark.usefixtures("_no_threads")
async def test_look_up_by_tcp_uses_no_thread() -> None:
    """Neither for the connection."""

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        return [reply(query, _RECORD) if by_tcp else reply(query, truncated=True)]

    async with scripted_dns(respond) as server:
        found = await Names((server.nameserver,), family="ipv4").addresses("api.internal")

    assert found.records == ("10.0.0.1",)


async def test_cancelled_connection_by_tcp_is_closed() -> None:
    """While it is being opened."""
    with blackhole() as port:
        before = _open_sockets()
        opening = asyncio.create_task(connect("127.0.0.1", port, socket.SOCK_STREAM))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        during = _open_sockets() - before
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        after = _open_sockets() - before

    assert (len(during), after) == (1, set())


async def test_connection_by_tcp_ends_in_time() -> None:
    """Where a truncated response came, and TCP packets get lost."""
    with blackhole() as port:
        before = _open_sockets()
        with pytest.raises(dns.exception.Timeout):
            await NameServer("127.0.0.1", port).async_query(
                dns.message.make_query("a.", "A"), 0.05, None, 0, True, None
            )

        assert _open_sockets() - before == set()


async def test_link_local_server_needs_no_look_up() -> None:
    """An address with a zone; asyncio would look it up in a thread."""
    with pytest.raises(LookupFailed, match=r"\[fe80::1%lo\]:9 failed: "):
        await DnsServers([parse_nameserver("[fe80::1%lo]:9")]).ask("a.", "A", 1.0)


def test_look_ups_work_on_uvloop() -> None:
    """By UDP and TCP."""

    def respond(query: dns.message.Message, by_tcp: bool) -> list[dns.message.Message]:
        return [reply(query, _RECORD) if by_tcp else reply(query, truncated=True)]

    async def look_up() -> Found[str]:
        async with scripted_dns(respond) as server:
            return await Names((server.nameserver,), family="ipv4").addresses("api.internal")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(look_up()) == Found(("10.0.0.1",), 30.0)

"""The guard of a dial: each IP address is judged before ``connect``, whatever led to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from fastapi_proxy_di.errors import DestinationNotAllowed, ProxyError
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.transport.dialling import known_name
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.transport.protocol import Transport
from fastapi_proxy_di.wire.addresses import parse_address
from fastapi_proxy_di.wire.reachable import refusal
from tests.support.dynamic_addresses import REFUSED_IPS
from tests.support.gateways import billing
from tests.support.name_servers import Names
from tests.support.origins import ScriptedOrigin
from tests.transport.http1.engine import get


def guarded(url: str, *networks: str, **settings: Any) -> Transport:
    """A transport that dials only addresses in the networks, or no special ones."""
    given: UpstreamSettings = billing("http://unused.test", **settings)
    guard = partial(refusal, networks=tuple(map(ip_network, networks)))
    return TransportFactory(given).guarded(given, guard).make(parse_address(url))


async def served(transport: Transport) -> bytes:
    """Give the body of a response on a new connection."""
    exchange = await transport.start(get(), b"", more=False)
    await exchange.head()
    body = await exchange.read()
    exchange.close()
    return body


async def refusal_of(transport: Transport) -> DestinationNotAllowed:
    """Give the error of a dial that the guard refuses."""
    try:
        with pytest.raises(DestinationNotAllowed) as raised:
            await transport.start(get(), b"", more=False)
    finally:
        await transport.aclose()
    return raised.value


@contextlib.contextmanager
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the making of a socket fail with an error that no dial expects."""
    with monkeypatch.context() as patched:
        patched.setattr("fastapi_proxy_di.transport.dialling.race.socket.socket", None)
        yield


@pytest.mark.parametrize(("address", "reason"), REFUSED_IPS)
async def test_name_that_leads_to_a_refused_address_makes_no_socket(
    monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    """The error names the address and the reason."""
    infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]
    monkeypatch.setattr(
        "fastapi_proxy_di.transport.dialling.resolver.socket.getaddrinfo",
        lambda *_, **options: [] if options.get("flags") else infos,
    )
    with no_sockets(monkeypatch):
        error = await refusal_of(guarded("http://evil.test"))

    assert str(error) == (f"http://evil.test leads to {address}, which is refused: {reason}")


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://[::1]", "https://[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_literal_address_makes_no_socket(
    monkeypatch: pytest.MonkeyPatch, url: str, version: str
) -> None:
    """For every version of HTTP."""
    with no_sockets(monkeypatch):
        error = await refusal_of(guarded(url, http_version=version))

    assert "refused: loopback" in str(error)


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_refused_address_refuses_the_dial(
    monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Wherever it stands among those of the race, though others would accept."""
    names = Names(monkeypatch)
    async with ScriptedOrigin() as origin:
        addresses = ["127.0.0.1", "127.0.0.1"]
        addresses.insert(place, "::1")
        names.resolve("mixed.test", *addresses)
        error = await refusal_of(guarded(f"http://mixed.test:{origin.port}", "127.0.0.0/8"))

    assert "leads to ::1, which is refused: outside of the networks" in str(error)
    assert origin.connections == 0


async def test_allowed_addresses_are_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a guard."""
    names = Names(monkeypatch)
    async with ScriptedOrigin() as origin:
        names.resolve("good.test", "127.0.0.3", "127.0.0.1")
        transport = guarded(f"http://good.test:{origin.port}", "127.0.0.0/8")
        assert await served(transport) == b"ok"
        await transport.aclose()


async def test_stale_addresses_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another upstream has looked the name up; now look-ups fail."""
    monkeypatch.setattr(known_name, "FRESH_SECONDS", 0.0)
    names = Names(monkeypatch)
    async with ScriptedOrigin() as origin:
        url = f"http://stale.test:{origin.port}"
        names.resolve("stale.test", "127.0.0.1")
        pool = TransportFactory(billing(url)).make(parse_address(url))
        assert await served(pool) == b"ok"
        names.fail("stale.test")
        listed = guarded(url, "127.0.0.0/8")
        assert await served(listed) == b"ok"

        error = await refusal_of(guarded(url))

        for transport in (pool, listed):
            await transport.aclose()
    assert "leads to 127.0.0.1, which is refused: loopback" in str(error)
    assert names.looked_up["stale.test"] > 1


async def test_each_dial_looks_at_its_own_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may lead elsewhere at the next look-up: forth and back."""
    monkeypatch.setattr(known_name, "FRESH_SECONDS", 0.0)
    names = Names(monkeypatch)
    async with ScriptedOrigin() as origin:
        transport = guarded(f"http://moving.test:{origin.port}", "127.0.0.1/32", "::1/128")
        outcomes = []
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1", "169.254.169.254"):
            names.resolve("moving.test", address)
            try:
                outcomes.append(await served(transport))
            except ProxyError as error:
                outcomes.append(error.failure.value.encode())
            await asyncio.sleep(0)
        await transport.aclose()

    assert outcomes == [b"ok", b"refused_address", b"ok", b"refused_address"]

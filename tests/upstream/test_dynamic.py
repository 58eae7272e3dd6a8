"""Requests to dynamic destinations, on real sockets."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from fastapi_proxy_di import Balancer, DestinationNotAllowed, Failure, Side
from fastapi_proxy_di.upstream.composition import compose
from tests.support.dynamic_addresses import NETWORKS, ORIGINS, REFUSED
from tests.support.gateways import Gateway, billing, until
from tests.support.given import address_of_lease, given_app, to
from tests.support.http_client import RawResponse, fetch
from tests.support.name_servers import Names
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.websocket.gateways import serving

pytestmark = pytest.mark.e2e


async def ask(gateway: Gateway, address: str, *headers: tuple[bytes, bytes]) -> RawResponse:
    """Send a GET to an address through the gateway."""
    return await fetch(gateway.address, target="/billing/x?q=1", headers=to(address, *headers))


async def test_request_goes_to_the_address() -> None:
    """The path, the query and the forwarding headers go there, with the Host of the address."""
    async with ScriptedOrigin() as origin, serving(given_app(preserve_host=True)) as gateway:
        reply = await ask(gateway, f"{origin.url}/base")

    request = origin.request
    assert (reply.status, reply.body) == (200, b"ok")
    assert request.target == b"/base/x?q=1"
    assert request.one(b"host") == f"127.0.0.1:{origin.port}".encode()
    assert request.one(b"x-forwarded-host") == b"gateway.test"
    assert request.one(b"x-forwarded-prefix") == b"/billing"


async def test_pool_serves_requests_without_an_address() -> None:
    """Both are parts of one upstream; the status has a number for the addresses."""
    async with (
        ScriptedOrigin() as pool,
        ScriptedOrigin() as given,
        serving(given_app(pool.url)) as gateway,
    ):
        await fetch(gateway.address, target="/billing/pool")
        await ask(gateway, given.url)
        status = gateway.balancer.status()

    assert [one.target for one in pool.requests] == [b"/pool"]
    assert [one.target for one in given.requests] == [b"/x?q=1"]
    assert [one.url for one in status.destinations] == [pool.url]
    assert (status.dynamic_destinations, status.recent_attempts) == (1, 2)
    assert status.limits == {"limits.dynamic_destinations": 1000}


async def test_upstream_without_destinations_has_none_available() -> None:
    """A request without an address gets 503, and the app is ready all the same."""
    async with ScriptedOrigin() as given, serving(given_app()) as gateway:
        without = await fetch(gateway.address, target="/billing/x")
        assert (await ask(gateway, given.url)).status == 200
        assert gateway.balancer.pick() is None
        assert gateway.balancer.peek() is None

    assert without.status == 503


async def test_connection_is_used_again_and_closed_when_idle() -> None:
    """Then the destination is gone too."""
    async with (
        ScriptedOrigin(always(response_bytes(200, b"ok"))) as origin,
        serving(given_app(limits={"idle_seconds": 0.2})) as gateway,
    ):
        await ask(gateway, origin.url)
        await ask(gateway, origin.url)
        assert origin.connections == 1
        await until(lambda: not gateway.balancer.status().dynamic_destinations)


# -- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record what is looked up and what is connected to, without letting it happen."""
    found: list[Any] = []

    async def connect(*arguments: Any, **_: Any) -> None:
        found.append(arguments)
        raise ConnectionRefusedError

    def look_up(host: str, port: int, *arguments: Any, **options: Any) -> Any:
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            return numeric(host, port, *arguments, **options)
        found.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "recorded")

    numeric = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("fastapi_proxy_di.transport.dialling.race.start_connection", connect)
    return found


async def test_refused_address_sends_nothing(dialled: list[Any]) -> None:
    """Whatever it is written like: 502, unexplained, no look-up and no dial."""
    app = given_app(origins=ORIGINS, networks=NETWORKS)
    async with serving(app) as gateway:
        for address in REFUSED:
            reply = await ask(gateway, address)
            document = json.loads(reply.body)
            assert (reply.status, document["failure"]) == (502, "refused_address"), address
            assert document["detail"] == (
                "The upstream could not be reached or gave no valid response."
            )
        assert dialled == []
        for address in ("http://10.1.2.3", "http://alice.notebooks.test:8888"):
            assert (await ask(gateway, address)).status == 502
        assert len(dialled) == 2


async def test_refusal_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Once in ten seconds, with the reason that the response does not have."""
    async with serving(given_app()) as gateway:
        for port in range(1, 6):
            await ask(gateway, f"http://10.0.0.1:{port}")
        status = gateway.balancer.status()

    records = [one for one in caplog.records if "refused" in one.message]
    assert "'http://10.0.0.1:1' is refused: outside of the networks" in records[0].message
    assert records[0].__dict__["failure"] == "refused_address"
    assert "4 × refused address in " in records[1].message
    assert len(records) == 2
    assert status.dynamic_destinations == 0


async def test_name_that_leads_to_a_refused_address_is_not_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One refused address among several refuses the dial, also when it is not the first."""
    names = Names(monkeypatch)
    async with ScriptedOrigin() as origin:
        names.resolve("evil.notebooks.test", "127.0.0.1", "127.0.0.2", "169.254.169.254")
        names.resolve("good.notebooks.test", "127.0.0.1")
        app = given_app(origins=["http://*.notebooks.test:*"])
        async with serving(app) as gateway:
            good = await ask(gateway, f"http://good.notebooks.test:{origin.port}")
            evil = await ask(gateway, f"http://evil.notebooks.test:{origin.port}")

    assert (good.status, evil.status) == (200, 502)
    assert json.loads(evil.body)["failure"] == "refused_address"
    assert origin.connections == 1


async def test_name_that_moves_to_a_refused_address_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: the second look-up leads to an address where somebody listens."""
    monkeypatch.setattr("fastapi_proxy_di.transport.dialling.known_name.FRESH_SECONDS", 0.0)
    names = Names(monkeypatch)
    closing = response_bytes(200, b"ok", [(b"Connection", b"close")])
    async with ScriptedOrigin(always(closing)) as origin:
        app = given_app(origins=["http://*.notebooks.test:*"], networks=["127.0.0.1/32", "::1/128"])
        async with serving(app) as gateway:
            url = f"http://bob.notebooks.test:{origin.port}"
            names.resolve("bob.notebooks.test", "127.0.0.1")
            first = await ask(gateway, url)
            names.resolve("bob.notebooks.test", "127.0.0.2")
            second = await ask(gateway, url)

    assert (first.status, second.status) == (200, 502)
    assert json.loads(second.body)["failure"] == "refused_address"
    assert names.looked_up["bob.notebooks.test"] == 2
    assert len(origin.requests) == 1


async def test_error_tells_code_what_is_wrong() -> None:
    """It is a `ProxyError`, and a `ValueError` for an argument."""
    allowed = {"origins": ["http://*.notebooks.test"]}
    async with Balancer.from_settings(billing(allowed_destinations=allowed)) as balancer:
        with pytest.raises(DestinationNotAllowed, match="none of the allowed origins") as raised:
            await address_of_lease(balancer, "http://evil.test")

    error = raised.value
    assert isinstance(error, ValueError)
    assert error.failure is Failure.REFUSED_ADDRESS
    assert (error.failure.side, error.failure.unsent) == (Side.PROXY, True)


async def test_addresses_need_a_setting() -> None:
    """Without it the argument is a mistake of the programmer."""
    async with Balancer.from_settings(billing("http://a")) as balancer:
        with pytest.raises(ValueError, match="none of the destinations of billing"):
            balancer.lease(destination="http://b")


async def test_fault_of_tls_shows_at_start(tmp_path: Path) -> None:
    """The first request to an address would be too late."""
    (tmp_path / "bad.pem").write_text("no certificate")
    settings = billing(
        allowed_destinations={"networks": ["10.0.0.0/8"]},
        tls={"ca_file": tmp_path / "bad.pem"},
    )

    with pytest.raises(ValueError, match=r"^tls\.ca_file: "):
        compose(settings)

"""``serve``: a gateway from the environment, as a process in front of real upstreams."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastapi_proxy_di import UpstreamSettings
from fastapi_proxy_di.cli import main, serve
from fastapi_proxy_di.cli.demo.fleet import Fleet
from fastapi_proxy_di.cli.demo.load_http import HttpConnection
from fastapi_proxy_di.cli.demo.load_websocket import LoadWebSocket
from tests.support.processes import Process, package

pytestmark = pytest.mark.e2e

READY = r"^{}: http://127\.0\.0\.1:(\d+)({})$"


class Billing(UpstreamSettings, name="billing"):
    """Settings to set the server up for."""


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """Two real upstreams."""
    fleet = Fleet(2)
    try:
        await fleet.start()
        yield fleet
    finally:
        await fleet.stop()


async def ready(running: Process, name: str = "billing", mount: str = "/") -> int:
    """The gateway's port, once it serves."""
    return int((await running.line(READY.format(name, mount)))[1])


async def test_serve_is_a_gateway_over_all_destinations(fleet: Fleet) -> None:
    """JSON, the upstream's own pages and a WebSocket, spread over both upstreams."""
    environment = {
        "UPSTREAM_BILLING_DESTINATIONS": ",".join(one.url for one in fleet.upstreams),
        "UPSTREAM_BILLING_POLICY": "round_robin",
        "UPSTREAM_BILLING_HEALTH__PATH": "/health",
    }
    async with package("serve", "billing", "--port", "0", environment=environment) as running:
        port = await ready(running)
        connection = HttpConnection(port)
        names = set()
        for _ in range(2):
            await connection.send("GET", "/")
            names.add(json.loads(await connection.read())["upstream"])
        await connection.send("GET", "/openapi.json")
        document = json.loads(await connection.read())
        page = await connection.send("GET", "/docs")
        await connection.read()
        connection.close()
        websocket = LoadWebSocket(port, "/echo")
        await websocket.open()
        await websocket.send("hello")
        echo = await websocket.receive()
        await websocket.close()
        running.signal(signal.SIGTERM)
        status = await running.end()

    assert names == {"a", "b"}
    assert document["info"]["title"] in {"Demo upstream a", "Demo upstream b"}
    assert page.status == 200
    assert echo in {"a: hello", "b: hello"}
    assert status == 0
    assert any("GET /openapi.json 200" in line for line in running.lines)


async def test_serve_mounts_several_upstreams_by_name(fleet: Fleet) -> None:
    """Each at its own prefix; Ctrl-C ends it without a traceback."""
    first, second = fleet.upstreams
    environment = {
        "UPSTREAM_BILLING_DESTINATIONS": first.url,
        "UPSTREAM_SEARCH_V2_DESTINATIONS": second.url,
    }
    words = ("serve", "billing", "search-v2", "--port", "0", "--no-access-log")
    async with package(*words, environment=environment) as running:
        port = await ready(running, mount="/billing")
        connection = HttpConnection(port)
        answered = []
        for path in ("/billing/", "/search-v2/"):
            await connection.send("GET", path)
            answered.append(json.loads(await connection.read())["upstream"])
        elsewhere = await connection.send("GET", "/other")
        await connection.read()
        connection.close()
        running.signal(signal.SIGINT)
        status = await running.end()

    assert answered == ["a", "b"]
    assert elsewhere.status == 404
    assert status == 130
    assert not any("Traceback" in line or "GET" in line for line in running.lines)


async def test_serve_tells_the_upstream_who_asked(fleet: Fleet) -> None:
    """``append`` sees a trusted peer's list, because uvicorn leaves the peer alone."""
    config = serve.server_config(serve.gateway({}), [billing()], access_log=True)

    assert config.proxy_headers is False
    assert config.timeout_graceful_shutdown == 10


def billing(**settings: object) -> Billing:
    """Settings with one destination."""
    return Billing(**{"destinations": ["http://127.0.0.1:9"], **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("upstreams", "own"),
    [
        ([billing()], True),
        ([billing(response_server_headers="pass")], False),
        ([billing(), billing(response_server_headers="pass")], False),
    ],
)
def test_serve_adds_date_and_server_unless_an_upstream_passes_them(
    upstreams: list[Billing], own: bool
) -> None:
    """Never two of them."""
    config = serve.server_config(serve.gateway({}), upstreams, access_log=False)

    assert (config.date_header, config.server_header) == (own, own)
    assert config.access_log is False


def test_serve_lets_messages_through_as_large_as_an_upstream_may_send() -> None:
    """The larger of uvicorn's limit, where there is none of ours, and the settings'."""
    small = billing(websocket={"max_message_bytes": 1000})
    large = billing(websocket={"max_message_bytes": 100_000_000})

    def limit(*upstreams: Billing) -> int:
        return serve.server_config(serve.gateway({}), upstreams, access_log=True).ws_max_size

    assert limit(small) == 1000
    assert limit(small, large) == 100_000_000
    assert limit(small, billing()) == 16 * 1024 * 1024


def test_serve_says_every_fault_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message with both, status 2, no traceback."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "ftp://x")
    monkeypatch.setenv("UPSTREAM_BILLING_POLICY", "fastest")

    status = main(["serve", "billing"])

    error = capsys.readouterr().err
    assert status == 2
    assert "UPSTREAM_BILLING_DESTINATIONS" in error
    assert "UPSTREAM_BILLING_POLICY" in error
    assert "Traceback" not in error


async def test_serve_says_what_only_the_start_finds(tmp_path: Path) -> None:
    """A certificate that cannot be read is a fault of the settings like any other."""
    bad = tmp_path / "roots.pem"
    bad.write_text("not a certificate")
    environment = {
        "UPSTREAM_BILLING_DESTINATIONS": "https://127.0.0.1:9",
        "UPSTREAM_BILLING_TLS__CA_FILE": str(bad),
    }
    async with package("serve", "billing", "--port", "0", environment=environment) as running:
        status = await running.end()

    assert status == 2
    assert any("billing" in line for line in running.lines)
    assert not any("Traceback" in line for line in running.lines)


def test_serve_says_that_its_port_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2 and one line."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status = main(["serve", "billing", "--port", str(port)])

    assert status == 2
    assert f"port {port}" in capsys.readouterr().err

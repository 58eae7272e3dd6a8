"""``serve``: a gateway from the environment, as a process in front of real upstreams."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastapi_proxy_di import UpstreamSettings
from fastapi_proxy_di.cli import main, serve
from fastapi_proxy_di.cli.demo.fleet import Fleet
from fastapi_proxy_di.cli.demo.load_http import HttpConnection
from fastapi_proxy_di.cli.demo.load_websocket import LoadWebSocket
from fastapi_proxy_di.cli.gateway import gateway
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.processes import Process, package
from tests.support.servers import run_app
from tests.support.websocket_client import open_websocket
from tests.websocket.upstreams import EchoApp

pytestmark = pytest.mark.e2e

READY = r"^{}: http://127\.0\.0\.1:(\d+)({})$"


class Billing(UpstreamSettings, name="billing"):
    """Settings for the configuration of the server."""


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
    """JSON, the upstream's own pages and a WebSocket go to both upstreams."""
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
    """Each upstream has its own prefix; Ctrl-C ends the gateway without a traceback."""
    first, second = fleet.upstreams
    environment = {
        "UPSTREAM_BILLING_DESTINATIONS": first.url,
        "UPSTREAM_SEARCH_V2_DESTINATIONS": second.url,
    }
    words = ("serve", "billing", "search-v2", "--port", "0", "--no-access-log")
    async with package(*words, environment=environment) as running:
        port = await ready(running, mount="/billing")
        connection = HttpConnection(port)
        served = []
        for path in ("/billing/", "/search-v2/"):
            await connection.send("GET", path)
            served.append(json.loads(await connection.read())["upstream"])
        elsewhere = await connection.send("GET", "/other")
        await connection.read()
        connection.close()
        running.signal(signal.SIGINT)
        status = await running.end()

    assert served == ["a", "b"]
    assert elsewhere.status == 404
    assert status == 130
    assert not any("Traceback" in line or "GET" in line for line in running.lines)


async def test_serve_forwards_the_address_of_the_client(fleet: Fleet) -> None:
    """``append`` extends the list of a trusted peer; uvicorn does not change the peer."""
    config = serve.server_config(gateway({}), [billing()], access_log=True)

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
def test_serve_adds_date_and_server_unless_an_upstream_forwards_them(
    upstreams: list[Billing], own: bool
) -> None:
    """A response never has two of them."""
    config = serve.server_config(gateway({}), upstreams, access_log=False)

    assert (config.date_header, config.server_header) == (own, own)
    assert config.access_log is False


def test_serve_allows_the_largest_message_of_any_upstream() -> None:
    """An upstream without a limit takes uvicorn's limit away."""
    small = billing(websocket={"max_message_bytes": 1000})
    large = billing(websocket={"max_message_bytes": 100_000_000})
    unlimited = billing(websocket={"max_message_bytes": None})

    def limit(*upstreams: Billing) -> int:
        return serve.server_config(gateway({}), upstreams, access_log=True).ws_max_size

    assert limit(small) == 1000
    assert limit(small, large) == 100_000_000
    assert limit(small, billing()) == 16 * 1024 * 1024
    assert limit(large, unlimited) == sys.maxsize


async def test_serve_passes_messages_of_any_size_without_a_limit() -> None:
    """One byte more than uvicorn takes by default, from the client to the upstream and back."""
    message = bytes(16 * 1024 * 1024 + 1)
    async with run_app(EchoApp(), ws="websockets-sansio", ws_max_size=len(message)) as origin:
        environment = {
            "UPSTREAM_BILLING_DESTINATIONS": origin.url,
            "UPSTREAM_BILLING_WEBSOCKET__MAX_MESSAGE_BYTES": "none",
        }
        async with package("serve", "billing", "--port", "0", environment=environment) as running:
            port = await ready(running)
            async with open_websocket(("127.0.0.1", port), "/") as client:
                await client.send(message)
                echo = await client.recv()

    assert echo == message


def test_serve_reports_every_fault_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message has both faults; exit status 2, no traceback."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "ftp://x")
    monkeypatch.setenv("UPSTREAM_BILLING_POLICY", "fastest")

    status = main(["serve", "billing"])

    error = capsys.readouterr().err
    assert status == 2
    assert "UPSTREAM_BILLING_DESTINATIONS" in error
    assert "UPSTREAM_BILLING_POLICY" in error
    assert "Traceback" not in error


async def test_serve_reports_faults_found_at_start(tmp_path: Path) -> None:
    """A certificate that cannot be read is reported as a fault of the settings."""
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


def test_serve_reports_a_port_in_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2 and one line."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status = main(["serve", "billing", "--port", str(port)])

    assert status == 2
    assert f"port {port}" in capsys.readouterr().err


@pytest.mark.usefixtures("default_sighup")
@pytest.mark.parametrize(("reload", "by_signal"), [("signal", True), ("watch", False)])
async def test_serve_reloads_its_file_of_variables(
    reload: str, by_signal: bool, tmp_path: Path
) -> None:
    """By SIGHUP, or when the file changes; the process stays."""
    file = tmp_path / "billing.env"
    async with ScriptedOrigin() as one, ScriptedOrigin() as two:
        file.write_text(f"UPSTREAM_BILLING_DESTINATIONS={one.url}\nFASTAPI_PROXY_RELOAD={reload}\n")
        words = ("serve", "billing", "--port", "0", "--env-file", str(file))
        async with package(*words) as running:
            address = ("127.0.0.1", await ready(running))
            await fetch(address)
            file.write_text(f"UPSTREAM_BILLING_DESTINATIONS={two.url}\n")
            if by_signal:
                running.signal(signal.SIGHUP)
            async with asyncio.timeout(60):
                while not two.requests:
                    assert (await fetch(address)).status == 200
            running.signal(signal.SIGTERM)
            status = await running.end()

    assert len(one.requests) > 0
    assert status == 0

"""A page in headless Chromium uses a WebSocket through the gateway."""

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from tests.support.chromium import browsing, needs_chromium
from tests.support.gateways import gateway_app
from tests.websocket.gateways import every_uvicorn, serving
from tests.websocket.upstreams import EchoApp, echo_server

_PAGE: Final = """<!doctype html>
<title>echo</title>
<script>
const report = {sent: 0, same: 0, closes: []};
const open = (path, protocols) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`ws://${location.host}/billing${path}`, protocols);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => resolve(socket);
  socket.onclose = event => reject(`closed with ${event.code}`);
});
const same = (one, other) => typeof one === "string" ? one === other
  : other.byteLength === one.length && new Uint8Array(other).every((byte, at) => byte === one[at]);
const echo = async (socket, message) => {
  const received = new Promise(resolve => { socket.onmessage = event => resolve(event.data); });
  socket.send(message);
  report.sent += 1;
  report.same += same(message, await received) ? 1 : 0;
};
const run = async () => {
  const socket = await open("/live?page=1", ["v2.chat", "v1.chat"]);
  report.protocol = socket.protocol;
  report.extensions = socket.extensions;
  for (const message of ["grüße 🎉", "", "x".repeat(500000), new Uint8Array(0),
                         new Uint8Array(300000).map((_, at) => at)])
    await echo(socket, message);
  const closed = new Promise(resolve => { socket.onclose = event => resolve(event); });
  socket.close(4001, "done");
  const event = await closed;
  report.closes.push([event.code, event.reason, event.wasClean]);
};
run().catch(error => { report.error = String(error); })
  .then(() => fetch("/report", {method: "POST", body: JSON.stringify(report)}));
</script>
"""


def _app(url: str, reports: asyncio.Queue[dict[str, Any]]) -> FastAPI:
    """Make a gateway that serves the page and receives its report."""
    app = FastAPI(openapi_url=None)

    @app.get("/page")
    async def page() -> HTMLResponse:
        # Not by `document.cookie`: a browser may send a handshake before it has stored that one.
        return HTMLResponse(_PAGE, headers={"set-cookie": "seat=7"})

    @app.post("/report")
    async def report(request: Request) -> None:
        reports.put_nowait(await request.json())

    return gateway_app(url, app=app)


@pytest.mark.browser
@pytest.mark.e2e
@every_uvicorn
@needs_chromium
async def test_page_echoes_through_the_gateway(server: str, tmp_path: Path) -> None:
    """Subprotocol, compression on its own hop, every kind of message, and its close code."""
    upstream = EchoApp(subprotocols=["v1.chat"])
    reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    async with (
        echo_server(upstream) as running,
        serving(_app(running.url, reports), server=server) as gateway,
        browsing(f"{gateway.running.url}/page", tmp_path),
        asyncio.timeout(40),
    ):
        report = await reports.get()
        end = await upstream.end()

    assert report["protocol"] == "v1.chat"
    assert report["extensions"].startswith("permessage-deflate")
    assert (report["sent"], report["same"]) == (5, 5)
    assert report["closes"] == [[4001, "done", True]]
    assert "error" not in report
    assert (end["code"], end["reason"]) == (4001, "done")
    assert upstream.all(b"origin") == [gateway.running.url.encode()]
    assert upstream.all(b"cookie") == [b"seat=7"]
    assert upstream.all(b"sec-websocket-extensions") == []
    assert upstream.scope["query_string"] == b"page=1"

"""``serve --status``: a page on the loopback address, without a login."""

from __future__ import annotations

import json
import signal

import pytest

from fastapi_proxy_di.cli import main
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.processes import package

pytestmark = pytest.mark.e2e


async def test_status_page_is_on_a_port_of_its_own() -> None:
    """With the mounts, readiness, and for names of this machine only; the gateway has none."""
    well = always(response_bytes(body=b"ok"))
    async with ScriptedOrigin(well) as origin:
        environment = {
            "UPSTREAM_BILLING_DESTINATIONS": origin.url,
            "UPSTREAM_SEARCH_DESTINATIONS": origin.url,
        }
        words = ("serve", "billing", "search", "--host", "0.0.0.0", "--port", "0", "--status", "0")
        async with package(*words, environment=environment) as running:
            port = int((await running.line(r"^search: http://0\.0\.0\.0:(\d+)/search$"))[1])
            page = int((await running.line(r"^status page: http://127\.0\.0\.1:(\d+)/$"))[1])
            gateway, status = ("127.0.0.1", port), ("127.0.0.1", page)
            await fetch(gateway, target="/billing/x")
            shown = await fetch(status, target="/status.json", host=b"localhost")
            html = await fetch(status, target="/", host=b"127.0.0.1:%d" % page)
            ready = await fetch(status, target="/ready", host=b"localhost")
            drain = await fetch(status, "POST", "/billing/drain", host=b"localhost")
            foreign = await fetch(status, target="/status.json", host=b"evil.example")
            outside = await fetch(gateway, target="/status.json")
            running.signal(signal.SIGTERM)
            ended = await running.end()

    report = json.loads(shown.body)
    assert [one["upstream"] for one in report["upstreams"]] == ["billing", "search"]
    assert [(one["upstream"], one["path"]) for one in report["mounts"]] == [
        ("billing", "/billing"),
        ("search", "/search"),
    ]
    assert b"billing" in html.body
    assert (ready.status, drain.status, foreign.status, outside.status) == (200, 404, 400, 404)
    assert ended == 0


async def test_readiness_fails_without_a_destination() -> None:
    """For health checks of containers; the page itself responds."""
    async with ScriptedOrigin(always(response_bytes(500))) as origin:
        environment = {
            "UPSTREAM_BILLING_DESTINATIONS": origin.url,
            "UPSTREAM_BILLING_HEALTH__PATH": "/health",
        }
        words = ("serve", "billing", "--port", "0", "--status", "0")
        async with package(*words, environment=environment) as running:
            page = int((await running.line(r"^status page: http://127\.0\.0\.1:(\d+)/$"))[1])
            statuses = [
                (await fetch(("127.0.0.1", page), target=path, host=b"localhost")).status
                for path in ("/ready", "/")
            ]

    assert statuses == [503, 200]


async def test_port_of_the_page_that_is_taken_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2 and one line."""
    async with ScriptedOrigin() as taken:
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", taken.url)
        status = main(["serve", "billing", "--port", "0", "--status", str(taken.port)])

    assert status == 2
    assert f"port {taken.port}" in capsys.readouterr().err

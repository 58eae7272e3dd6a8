"""The snippets and statements of "Read the log", with real processes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.docs.conftest import SNIPPETS
from tests.e2e.servers import uvicorn
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import dead_port

pytestmark = pytest.mark.e2e

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_access_records_are_json_lines() -> None:
    """Each exchange is one line of JSON with the attributes, whatever a client sends."""
    async with ScriptedOrigin() as origin:
        environment = {
            "UPSTREAM_BILLING_DESTINATIONS": f"http://127.0.0.1:{dead_port()},{origin.url}",
            "UPSTREAM_BILLING_POLICY": "first",
            "FASTAPI_PROXY_REQUEST_ID": "true",
        }
        environment["PYTHONPATH"] = str((SNIPPETS / "how_to/access_log.py").parent)
        async with uvicorn("tests.docs.traced:app", environment=environment) as server:
            for target in ("/billing/x?secret=1", "/billing/%0d%0a%22%1b[31m%E2%80%A8"):
                headers = [(b"X-Request-ID", b"c-1"), (b"traceparent", TRACE.encode())]
                assert (await fetch(server.address, target=target, headers=headers)).status == 200

    lines: list[dict[str, Any]] = [json.loads(one) for one in server.lines if one[:1] == "{"]
    assert len(lines) == 2
    for line in lines:
        expected = {
            "upstream": "billing",
            "destination": origin.url,
            "route": "/billing/{path:path}",
            "status": 200,
            "attempts": 2,
            "trace_id": TRACE.split("-")[1],
            "request_id": "c-1",
        }
        assert {name: line[name] for name in expected} == expected
        assert 0 < line["duration"] < 60
    assert [line["path"] for line in lines] == ["/billing/x", "/billing/%0d%0a%22%1b[31m%E2%80%A8"]
    assert [one for one in server.lines if "WARNING" in one] == []

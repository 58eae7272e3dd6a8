"""The snippets and statements of "Read the log", with real processes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.docs.conftest import SNIPPETS
from tests.docs.logged import logged
from tests.e2e.servers import uvicorn
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin
from tests.support.servers import dead_port

pytestmark = pytest.mark.e2e

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "logs.md"

Logged = tuple[dict[str, list[str]], list[str]]


def table() -> dict[str, list[str]]:
    """Give the lines of the page's first table, by what happens."""
    rows = PAGE.read_text("utf-8").partition("| --- |")[2].partition("\n\n")[0].splitlines()[1:]
    cells = [row.strip("| ").split(" | ") for row in rows]
    return {what: re.findall(r"`([^`]+)`", lines) for what, lines, _ in cells}


def general(lines: list[str]) -> list[str]:
    """Give the lines with the numbers of the page, sorted, each once."""
    for pattern, number in (
        (r"\d+ ×", "12 ×"),
        (r"in \d+ s$", "in 10 s"),
        (r"for [\d.]+ s", "for 30 s"),
        (r"of [\d.]+ s ran out", "of 5 s ran out"),
    ):
        lines = [re.sub(pattern, number, line) for line in lines]
    return sorted(set(lines))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen() -> Logged:
    """Put all faults into one gateway."""
    return await logged()


@pytest.mark.parametrize("what", table())
def test_log_says_what_the_table_says(what: str, seen: Logged) -> None:
    """The table has all lines of the gateway; its lines of uvicorn are in the log."""
    named = table()[what]
    lines = general(seen[0][what])

    assert [one for one in lines if not one.startswith("INFO: ")] == general(
        [one for one in named if not one.startswith("INFO: ")]
    )
    assert {one for one in named if one.startswith("INFO: ")} <= set(lines)


def test_each_fault_has_a_row(seen: Logged) -> None:
    """Each row of the table has a fault, too."""
    assert list(seen[0]) == list(table())


def test_lines_of_uvicorn_are_as_the_page_says(seen: Logged) -> None:
    """One line of uvicorn for each of the three responses, and at most for each handshake."""
    errors = sorted(re.sub(r": +", ": ", one) for one in seen[1] if one.startswith("ERROR"))
    named = re.findall(r"`(ERROR: [^`]+)`", PAGE.read_text("utf-8"))

    assert [one for one in errors if one != named[1]] == [named[0]] * 3


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

"""The files of the how-to page on outages work as described."""

from __future__ import annotations

import pytest

from tests.docs.conftest import Gateway, Snippet
from tests.support.origins import Connection, ScriptedOrigin
from tests.support.servers import dead_port

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize(
    ("page", "path"),
    [("how_to/second.py", "/invoices"), ("how_to/second_upstream.py", "/billing/invoices")],
)
async def test_second_upstream_gets_what_was_not_sent(
    snippet: Snippet,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    sent: bool,
    page: str,
    path: str,
) -> None:
    """A POST whose connection was refused; one that may have been done is not repeated."""

    async def closes(connection: Connection) -> None:
        await connection.read_request()

    async with ScriptedOrigin(closes) as closing, ScriptedOrigin() as archive:
        first = closing.url if sent else f"http://127.0.0.1:{dead_port()}"
        monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", first)
        monkeypatch.setenv("UPSTREAM_ARCHIVE_DESTINATIONS", archive.url)
        async with gateway(snippet(page).app) as client:
            reply = await client.post(path, content=b"hello")

    assert reply.status_code == (502 if sent else 200)
    assert [received.body for received in archive.requests] == ([] if sent else [b"hello"])

"""A destination that is killed is shown as such within a second, without a reload."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.e2e.status_page.shown import row, shown
from tests.support.browser import open_browser
from tests.support.chromium import needs_chromium
from tests.support.processes import running
from tests.support.servers import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.browser, needs_chromium]

_SECONDS: Final = 1.0
_WATCH: Final = """new Promise((resolve) => {
  const look = () => {
    const row = ROW;
    if (row?.dataset.state !== "ejected" || !/\\(\\w+\\)/.test(row.cells[1].innerText)) return;
    requestAnimationFrame(() => resolve(Date.now() / 1000));
  };
  new MutationObserver(look).observe(document.body,
    { subtree: true, childList: true, attributes: true });
})"""


async def test_killed_destination_is_shown_within_a_second(tmp_path: Path) -> None:
    """From the kill, with requests that find it out, to the frame with state, reason and time."""
    took = []
    ports = free_port(), free_port()
    dead, alive = (f"http://127.0.0.1:{port}" for port in ports)
    words = [
        (sys.executable, "-u", "-m", "http.server", str(port), "--bind", "127.0.0.1")
        for port in ports
    ]
    async with (
        open_browser(tmp_path / "profile") as browser,
        running(*words[1], folder=tmp_path) as healthy,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        await healthy.line("Serving")
        for _ in range(5):
            async with (
                running(*words[0], folder=tmp_path) as origin,
                shown(browser, dead, alive, ejection={"consecutive": 1}) as status,
            ):
                await origin.line("Serving")
                watch = _WATCH.replace("ROW", row(dead))
                await status.page.evaluate(f"window.seen = {watch}; 0")
                origin.signal(signal.SIGKILL)
                killed = time.time()
                with contextlib.suppress(httpx.HTTPError):
                    while not any(one.ejected for one in status.balancer.destinations):
                        await client.get(status.url.replace("/upstreams/", "/billing/"))
                seen = await status.page.evaluate("window.seen")
                took.append(seen - killed)

    assert max(took) < _SECONDS, json.dumps(took)

"""The built documentation: what a reader with a window of 1280 pixels sees."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from tests.support.chromium import browsing, needs_chromium
from tests.support.processes import ROOT
from tests.support.servers import run_app

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_MEMBERS: Final = {
    "Balancer": {
        "available",
        "client",
        "configure_destination",
        "configure_health",
        "destinations",
        "drain",
        "forward",
        "forward_websocket",
        "from_settings",
        "health",
        "httpx2_client",
        "lease",
        "name",
        "peek",
        "pick",
        "probe",
        "readmit",
        "reload",
        "replace_destinations",
        "settings",
        "status",
        "subscribe",
        "undrain",
    },
    "ProxiedResponse": {"aclose", "body", "iter_bytes", "read"},
    "Lease": {"answered", "failed", "succeeded"},
    "Destination": {"available", "ejected", "full"},
    "UpstreamStatus": set(),
    "DestinationStatus": set(),
    "ReloadStatus": set(),
    "SourceStatus": set(),
    "Percentiles": set(),
}
_MEASURE: Final = """<!doctype html>
<script>
const measure = async page => {
  const frame = document.createElement("iframe");
  frame.style = "width: 1280px; height: 1000px; border: 0";
  frame.src = page;
  const loaded = new Promise(resolve => { frame.onload = resolve; });
  document.body.append(frame);
  await loaded;
  const shown = frame.contentDocument;
  const style = shown.createElement("style");
  style.textContent = ".md-typeset .tabbed-block { display: block !important }";
  shown.head.append(style);
  for (const one of shown.querySelectorAll("details")) one.open = true;
  const found = [...shown.querySelectorAll("html, pre > code, .md-typeset__scrollwrap")];
  const hidden = found.filter(one => one.clientWidth === 0).length;
  const cut = found.filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText);
  frame.remove();
  return {page, shown: found.length - hidden, hidden, cut};
};
addEventListener("load", async () => {
  const reports = [];
  for (const page of PAGES) reports.push(await measure(page));
  await fetch("/report", {method: "POST", body: JSON.stringify(reports)});
});
</script>
<body></body>
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the documentation as ``mkdocs build --strict`` does."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "--site-dir", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True)
    return folder


async def _measured(site: Path, pages: list[str], profile: Path) -> list[dict[str, Any]]:
    """Give for each page the code blocks and tables that do not fit at a width of 1280 pixels."""
    reports: asyncio.Queue[list[dict[str, Any]]] = asyncio.Queue()
    app = FastAPI(openapi_url=None)

    @app.get("/measure")
    async def measure() -> HTMLResponse:
        return HTMLResponse(_MEASURE.replace("PAGES", json.dumps(pages)))

    @app.post("/report")
    async def report(request: Request) -> None:
        reports.put_nowait(await request.json())

    app.mount("/", StaticFiles(directory=site, html=True))
    async with (
        run_app(app) as running,
        browsing(f"{running.url}/measure", profile, "--window-size=1400,1100"),
        asyncio.timeout(100),
    ):
        return await reports.get()


def _pages(site: Path) -> list[str]:
    folders = sorted(file.parent.relative_to(site) for file in site.rglob("index.html"))
    return [f"/{folder}/".replace("/./", "/") for folder in folders]


@pytest.mark.browser
@needs_chromium
async def test_no_page_is_cut(site: Path, tmp_path: Path) -> None:
    """The code and the tables of each page fit into 1280 pixels, those behind tabs too."""
    reports = await _measured(site, _pages(site), tmp_path)
    shown = {report["page"]: report["shown"] for report in reports}

    assert [(report["page"], report["cut"]) for report in reports if report["cut"]] == []
    assert [report["page"] for report in reports if report["hidden"]] == []
    assert shown["/"] >= 4
    assert shown["/reference/settings/"] >= 10
    assert shown["/migration/"] >= 15
    assert len(shown) >= 44


def test_balancer_reference_shows_no_internals(site: Path) -> None:
    """It has the public members of each class, and neither constructors nor source code."""
    page = (site / "reference" / "balancer" / "index.html").read_text()
    ids = re.findall(r'id="fastapi_proxy_di\.(\w+)(?:\.(\w+))?"', page)
    members = {name: {member for one, member in ids if one == name and member} for name, _ in ids}
    text = re.sub(r"<[^>]+>", "", page)

    assert members == _MEMBERS
    assert "max_in_flight: int | None = ..." in text  # the keywords of configure_destination
    for internal in ("RunningUpstream", "Outcomes", "UpstreamResponse", "Changes", "Source code"):
        assert internal not in text


def test_each_setting_has_an_anchor(site: Path) -> None:
    """A link to a single setting leads to its row."""
    page = (site / "reference" / "settings" / "index.html").read_text()

    for anchor in ("policy", "health.interval", "limits.queue", "destinations.weight"):
        assert page.count(f'id="{anchor}"') == 1
        assert f'href="#{anchor}"' in page

"""A real Prometheus scrapes a gateway under load: its numbers are what the origins counted.

One gateway goes through everything that changes counts, and the tests read what Prometheus has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio
from starlette.types import Receive, Scope, Send

from scripts import grafana_dashboard
from tests.e2e.servers import prometheus, uvicorn
from tests.support.processes import Process
from tests.support.servers import dead_port, run_app
from tests.support.websocket_client import open_websocket

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

_DEADLINE_SECONDS: Final = 60.0
_WINDOW: Final = "10m"
"""Longer than the whole test, and shorter than what Prometheus looks back at least."""


class Origin:
    """An origin that counts what reaches it.

    Args:
        status: Status of its responses.
        seconds: How long it takes.

    Attributes:
        status: Status of its responses.
        seconds: How long it takes.
        requests: How many requests it got.
        tunnels: How many WebSockets it got.
    """

    def __init__(self, status: int = 200, seconds: float = 0.0) -> None:
        self.status = status
        self.seconds = seconds
        self.requests = 0
        self.tunnels = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request, or send each message of a WebSocket back."""
        if scope["type"] == "websocket":
            self.tunnels += 1
            await send({"type": "websocket.accept"})
            await receive()
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})
        elif scope["type"] == "http":
            self.requests += 1
            await asyncio.sleep(self.seconds)
            headers = [(b"content-type", b"application/json")]  # it is none, for a tap
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            await send({"type": "http.response.body", "body": b"done"})


@dataclass
class Story:
    """What happened, and the Prometheus that has seen it.

    Attributes:
        client: Asks the Prometheus.
        origins: The origins, by address.
        refusing: An address that nothing listens on.
        statuses: What the client got.
        began: When the load began, in seconds since 1970.
        ended: When Prometheus had seen its end.
    """

    client: httpx.AsyncClient
    origins: dict[str, Origin]
    refusing: str
    statuses: Counter[int] = field(default_factory=Counter)
    began: float = 0.0
    ended: float = 0.0

    async def ask(self, path: str, **parameters: Any) -> Any:
        """Ask Prometheus' API."""
        response = await self.client.get(f"/api/v1/{path}", params=parameters)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    async def query(self, query: str) -> list[tuple[dict[str, str], Any]]:
        """Give labels and value of each series; its samples for a range."""
        result = (await self.ask("query", query=query))["result"]
        return [(one["metric"], one.get("values") or one["value"][1]) for one in result]

    async def by(self, label: str, query: str) -> dict[str, float]:
        """Give the values of a query by one label."""
        return {labels[label]: float(value) for labels, value in await self.query(query)}

    async def scraped(self) -> None:
        """Wait for a scrape that begins after now."""
        now = time.time()
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while True:
                result = await self.query("timestamp(proxy_destination_count)")
                if result and min(float(at) for _, at in result) > now:
                    return
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """Run origins, gateway and Prometheus, and let everything happen once."""
    origins = [Origin(), Origin(seconds=0.05), Origin(status=500), Origin()]
    async with contextlib.AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(run_app(one))).url for one in origins]
        refusing = f"http://127.0.0.1:{dead_port()}"
        gateway = await stack.enter_async_context(
            uvicorn(
                "tests.e2e.observed_gateway:app",
                environment={
                    "UPSTREAM_BILLING_DESTINATIONS": ",".join([*urls[:3], refusing]),
                    "UPSTREAM_BILLING_EJECTION__CONSECUTIVE": "3",
                    "UPSTREAM_BILLING_LIMITS__MAX_IN_FLIGHT": "10",
                    "UPSTREAM_BILLING_LIMITS__QUEUE": "10",
                },
            )
        )
        scraper = await stack.enter_async_context(
            prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{gateway.port}")
        )
        client = httpx.AsyncClient(base_url=scraper.url, trust_env=False)
        await stack.enter_async_context(client)
        story = Story(client, dict(zip(urls, origins, strict=True)), refusing)
        await story.scraped()
        story.began = time.time()
        await _happens(story, gateway, urls)
        await story.scraped()
        story.ended = time.time()
        yield story


async def _happens(story: Story, gateway: Process, urls: list[str]) -> None:
    """Send load, and between the loads do what an operator does."""
    ok, slow, failing, added = urls
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=60) as client:

        async def load(count: int, at_once: int = 8) -> None:
            places = asyncio.Semaphore(at_once)

            async def one() -> None:
                async with places:
                    story.statuses[(await client.get("/billing/x")).status_code] += 1

            await asyncio.gather(*(one() for _ in range(count)))

        async def operate(action: str, value: Any) -> None:
            assert (await client.post(f"/{action}", json=value)).status_code == 200
            await story.scraped()  # a new series is seen at 0
            await load(40)

        await load(40)
        async with open_websocket(gateway.address) as tunnel:
            await tunnel.send("hello")
            await tunnel.recv()
            await load(40)
            await story.scraped()
            await tunnel.close(1000)
        seconds = {one: one.seconds for one in story.origins.values()}
        for one in seconds:
            one.seconds = 0.5
        await load(50, at_once=50)  # over the limit and the queue
        for one, before in seconds.items():
            one.seconds = before
        await story.scraped()
        await operate("drain", slow)
        await operate("undrain", slow)
        await operate("weight", ok)
        await operate("replace", [ok, slow, added])
        await operate("replace", [ok, slow, failing, story.refusing])


async def test_counts_are_those_of_the_origins(story: Story) -> None:
    """Every request and tunnel is one attempt; the client's failures are counted too."""
    attempts = await story.by(
        "proxy_destination", "sum by (proxy_destination) (proxy_attempts_total)"
    )
    failures = await story.by(
        "proxy_destination",
        'sum by (proxy_destination) (proxy_failures_total{error_type="connect"})',
    )
    refusals = await story.query("sum(proxy_refusals_total)")
    refused = attempts.pop(story.refusing)

    assert attempts == {url: one.requests + one.tunnels for url, one in story.origins.items()}
    assert failures == {story.refusing: refused}
    assert refused > 0
    assert float(refusals[0][1]) == story.statuses[503] > 0


async def test_statuses_are_those_of_the_origins(story: Story) -> None:
    """Durations are counted by server and status."""
    counted = await story.query(
        "sum by (server_port, http_response_status_code) "
        '(http_client_request_duration_seconds_count{http_response_status_code!=""})'
    )

    assert {
        (labels["server_port"], labels["http_response_status_code"]): float(value)
        for labels, value in counted
    } == {
        (url.rpartition(":")[2], str(one.status)): one.requests
        for url, one in story.origins.items()
    }


async def test_increase_and_rate_are_those_of_the_origins(story: Story) -> None:
    """As near as Prometheus comes, which extends what it has seen to the ends of the range.

    Of destinations that were there all the time: for two samples that is too much.
    """
    seconds = math.ceil(story.ended - story.began) + 1

    async def ask(function: str) -> dict[str, float]:
        samples = f"proxy_attempts_total[{seconds}s] @ {story.ended:.3f}"
        query = f"sum by (proxy_destination) ({function}({samples}))"
        return await story.by("proxy_destination", query)

    increase, rate = await ask("increase"), await ask("rate")
    for url, one in [*story.origins.items()][:3]:
        expected = one.requests + one.tunnels
        assert increase[url] == pytest.approx(expected, rel=0.2), url
        assert rate[url] * seconds == pytest.approx(increase[url]), url


async def test_growth_is_that_of_the_origins(story: Story) -> None:
    """Between the first and the last sample it is exact, also where a destination was added."""
    growth = await story.by(
        "proxy_destination",
        f"max_over_time(proxy_attempts_total[{_WINDOW}])"
        f" - min_over_time(proxy_attempts_total[{_WINDOW}])",
    )

    for url, one in story.origins.items():
        assert growth[url] == one.requests + one.tunnels, url


async def test_no_counter_falls(story: Story) -> None:
    """Over ejections, a drain, replaced and changed destinations; nor does a sum."""
    metrics = "proxy_.+_total|.+_bucket|.+_seconds_(count|sum)"
    series = await story.query(f'{{__name__=~"{metrics}"}}[{_WINDOW}]')
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    for labels, samples in series:
        values = [float(value) for _, value in samples]
        assert values == sorted(values), labels
        for at, value in samples:
            sums[labels["__name__"] + labels.get("le", ""), at] += float(value)
    ordered: defaultdict[str, list[float]] = defaultdict(list)
    for (name, _), value in sorted(sums.items(), key=lambda one: float(one[0][1])):
        ordered[name].append(value)

    assert ordered["proxy_attempts_total"][-1] > ordered["proxy_attempts_total"][0] == 0
    for name, values in ordered.items():
        assert values == sorted(values), name


async def test_gauges_are_at_rest_at_the_end(story: Story) -> None:
    """Nothing is under way, and each destination is in one state."""
    assert await story.by("job", "sum by (job) (http_client_active_requests)") == {"gateway": 0}
    assert await story.by("job", "sum by (job) (proxy_destination_count)") == {"gateway": 4}
    states = await story.query(f"max_over_time(proxy_destination_count[{_WINDOW}])")
    seen = {labels["proxy_destination_state"] for labels, value in states if float(value)}
    assert seen >= {"available", "ejected", "draining"}


async def test_dashboard_shows_something_in_every_panel(story: Story) -> None:
    """Each query of each panel gives a number, and each variable has values."""
    dashboard = json.loads(grafana_dashboard.FILE.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            result = await story.query(_filled(target["expr"]))
            values = [float(value) for _, value in result]
            assert any(map(math.isfinite, values)), (panel["title"], target["expr"], result)
            names = {*re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}
            assert all(labels.keys() >= names - {"proxy_destination"} for labels, _ in result)
    for one in dashboard["templating"]["list"][1:]:
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"]["query"])
        assert match is not None
        metric = _filled(match[1])
        assert await story.ask(f"label/{match[2]}/values", **{"match[]": metric}), one["name"]


def _filled(query: str) -> str:
    """Give a query with the values of a fresh dashboard."""
    query = query.replace("$__rate_interval", _WINDOW)
    return re.sub(r"\$(upstream|destination|process)", ".*", query)

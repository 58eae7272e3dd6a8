"""Prober: times of probes, good responses, and failures that do not stop it.

Long because each setting of probes is tested in a run of virtual time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import pairwise
from random import Random
from typing import Any, cast

import pytest

from fastapi_proxy_di import Balancer
from fastapi_proxy_di.errors import UpstreamConnectError
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import DestinationSettings, EjectionSettings, HealthSettings
from fastapi_proxy_di.supervision.events import DestinationDown, DestinationUp, Event, Events
from fastapi_proxy_di.supervision.prober import Prober
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transport.protocol import OutgoingRequest, Transport, TransportExchange
from fastapi_proxy_di.wire.addresses import Address
from tests.pools.samples import pool_of, settings_of
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import fetch
from tests.support.origins import ScriptedOrigin, always, response_bytes
from tests.support.virtual_time import run_virtually


class Probed:
    """A prober over stand-in transports; records each probe and responds by ``reply``."""

    def __init__(
        self, pool: Pool, reply: Callable[[str, OutgoingRequest], Awaitable[int]], **health: Any
    ) -> None:
        self.pool = pool
        self.reply = reply
        self.sent: list[tuple[float, str, OutgoingRequest]] = []
        self.body = b"ok"
        self.closed = 0
        self.told: list[Event] = []
        events = Events()
        events.subscribe(self.told.append)
        self._loop = asyncio.get_running_loop()
        settings = HealthSettings(**{"path": "/health", "jitter": 0, **health})
        self.supervisor = Supervisor(
            pool,
            Ejector(pool, EjectionSettings()),
            Threshold(settings.fall, settings.rise),
            SlowStart(0),
            events,
            window=15,
        )
        self.prober = Prober(
            supervisor=self.supervisor,
            settings=settings,
            transport_for=self._transport,
            headers=[(b"x-probe", b"1")],
            random=Random(1),
        )

    def _transport(self, destination: Destination) -> tuple[Transport, Address]:
        address = destination.settings.probe_address
        return cast("Transport", _Transport(self, address.url)), address

    def sent_to(self, index: int) -> list[float]:
        """Give the times of one destination's probes, in seconds since the loop began."""
        url = self.pool.destinations[index].url
        return [round(at - 1000, 3) for at, to, _ in self.sent if to == url]

    async def run(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        await asyncio.sleep(seconds)

    async def end(self) -> None:
        """Stop the prober and the supervisor."""
        await self.prober.aclose()
        self.supervisor.close()


class _Transport:
    def __init__(self, probed: Probed, url: str) -> None:
        self._probed = probed
        self._url = url

    async def start(
        self, request: OutgoingRequest, body: bytes, *, more: bool
    ) -> TransportExchange:
        probed = self._probed
        probed.sent.append((asyncio.get_running_loop().time(), self._url, request))
        return cast("TransportExchange", _Exchange(probed, self._url, request))


class _Exchange:
    def __init__(self, probed: Probed, url: str, request: OutgoingRequest) -> None:
        self.status = 0
        self._probed = probed
        self._url = url
        self._request = request
        self._left = [probed.body] if probed.body else []

    async def head(self) -> None:
        self.status = await self._probed.reply(self._url, self._request)

    async def read(self) -> bytes:
        return self._left.pop() if self._left else b""

    def close(self) -> None:
        self._probed.closed += 1


async def well(url: str, request: OutgoingRequest) -> int:
    """Respond with 200."""
    return 200


def test_prober_sweeps_all_at_once_then_at_the_interval() -> None:
    """The sweep is at start, the next probe an interval later."""

    async def scenario() -> Probed:
        probed = Probed(pool_of(2), well, interval=15)
        await probed.prober.sweep()
        probed.prober.start()
        await probed.run(31)
        await probed.end()
        return probed

    probed = run_virtually(scenario())

    assert probed.sent_to(0) == probed.sent_to(1) == [0, 15, 30]
    assert probed.closed == len(probed.sent)
    assert probed.pool.destinations[0].latency_ms is not None


def test_prober_first_sweep_changes_the_health_at_once() -> None:
    """A destination that is down at start gets no request; later ``fall`` failures are needed."""

    async def scenario() -> Probed:
        up = {"10.0.0.1"}

        async def reply(url: str, request: OutgoingRequest) -> int:
            return 200 if any(host in url for host in up) else 503

        probed = Probed(pool_of(2), reply, interval=10, fall=2)
        await probed.prober.sweep()
        down_at_start = [one.healthy for one in probed.pool.destinations]
        probed.prober.start()
        up.clear()
        await probed.run(10.5)
        once = probed.pool.destinations[0].healthy
        await probed.run(10)
        await probed.end()
        assert down_at_start == [True, False]
        assert once
        assert not probed.pool.destinations[0].healthy
        return probed

    probed = run_virtually(scenario())

    assert [type(event) for event in probed.told if event.destination] == [DestinationDown] * 2
    assert probed.told[0] == DestinationDown(
        "billing", probed.pool.destinations[1].url, "status 503"
    )


def test_prober_slow_probe_delays_no_other() -> None:
    """One hangs until its timeout; the others keep their interval."""

    async def scenario() -> Probed:
        async def reply(url: str, request: OutgoingRequest) -> int:
            await asyncio.sleep(3600 if "10.0.0.1" in url else 0)
            return 200

        probed = Probed(pool_of(3), reply, interval=10, timeout=5, fall=1)
        probed.prober.start()
        await probed.run(29)
        await probed.end()
        return probed

    probed = run_virtually(scenario())

    assert probed.sent_to(0) == [0, 15]
    assert probed.sent_to(1) == probed.sent_to(2) == [0, 10, 20]
    assert probed.told[0] == DestinationDown(
        "billing", probed.pool.destinations[0].url, "no response in time"
    )


def test_prober_probes_unhealthy_destinations_at_their_own_interval() -> None:
    """A destination that is down may be probed more often, to come back sooner."""

    async def scenario() -> Probed:
        probed = Probed(pool_of(2), well, interval=10, unhealthy_interval=1, fall=1)
        failing = probed.pool.destinations[0].url

        async def reply(url: str, request: OutgoingRequest) -> int:
            return 503 if url == failing and len(probed.sent_to(0)) < 3 else 200

        probed.reply = reply
        probed.prober.start()
        await probed.run(13)
        await probed.end()
        return probed

    probed = run_virtually(scenario())

    assert probed.sent_to(0) == [0, 1, 2, 12]
    assert [type(event) for event in probed.told] == [DestinationDown, DestinationUp]


def test_prober_jitter_keeps_within_its_share() -> None:
    """Pauses differ by at most a tenth."""

    async def scenario() -> Probed:
        probed = Probed(pool_of(1), well, interval=10, jitter=0.1)
        probed.prober.start()
        await probed.run(1000)
        await probed.end()
        return probed

    times = run_virtually(scenario()).sent_to(0)
    pauses = [later - earlier for earlier, later in pairwise(times)]

    assert len(set(pauses)) > 50
    assert 9 <= min(pauses) < 9.3
    assert 10.7 < max(pauses) <= 11


@pytest.mark.parametrize("status", [405, 501])
def test_prober_head_falls_back_to_get(status: int) -> None:
    """Once for each destination; later probes are GET."""

    async def scenario() -> Probed:
        async def reply(url: str, request: OutgoingRequest) -> int:
            return status if request.method == b"HEAD" else 200

        probed = Probed(pool_of(1), reply, method="HEAD", interval=10)
        probed.prober.start()
        await probed.run(15)
        await probed.end()
        return probed

    probed = run_virtually(scenario())

    assert [request.method for _, _, request in probed.sent] == [b"HEAD", b"GET", b"GET"]
    assert probed.told == []


@pytest.mark.parametrize(
    ("expected", "status", "ok"),
    [("200-399", 399, True), ("200-399", 400, False), ("204", 200, False), ("200,503", 503, True)],
)
def test_prober_expected_statuses_are_good(expected: str, status: int, ok: bool) -> None:
    """Also error statuses, if ``expected`` has them."""

    async def scenario() -> bool:
        async def reply(url: str, request: OutgoingRequest) -> int:
            return status

        probed = Probed(pool_of(1), reply, expected=expected)
        result = await probed.prober.probe(probed.pool.destinations[0])
        await probed.end()
        return result

    assert run_virtually(scenario()) is ok


@pytest.mark.parametrize(
    ("body", "ok"), [(b"status: fine", True), (b"status: broken", False), (b"", False)]
)
def test_prober_checks_the_body(body: bytes, ok: bool) -> None:
    """A 200 whose body does not match is a failure."""

    async def scenario() -> tuple[bool, list[Event]]:
        probed = Probed(pool_of(2), well, body_match="fine$")
        probed.body = body
        result = await probed.prober.probe(probed.pool.destinations[0])
        await probed.end()
        return result, probed.told

    result, told = run_virtually(scenario())

    assert result is ok
    assert [cast("DestinationDown", event).reason for event in told] == (
        [] if ok else ["its body does not match"]
    )


def test_prober_reads_a_limited_part_of_a_body() -> None:
    """An endless response does not hold the probe."""

    async def scenario() -> bool:
        probed = Probed(pool_of(1), well, body_match="x")
        probed.body = b"x" * 65536
        result = await probed.prober.probe(probed.pool.destinations[0])
        await probed.end()
        return result

    assert run_virtually(scenario())


def test_prober_uses_the_path_and_address_of_each_destination() -> None:
    """A path of its own, another address, the base path, and the query of a path."""
    pool = Pool(
        "billing",
        [
            settings_of(0),
            settings_of(1, health_path="/own?deep=1"),
            settings_of(2, health_url="http://10.9.9.9:81/base"),
            DestinationSettings(url="http://10.0.0.4/api"),
        ],
        panic=True,
    )

    async def scenario() -> Probed:
        probed = Probed(pool, well)
        await probed.prober.sweep()
        await probed.end()
        return probed

    asked = [
        (url, request.target, dict(request.headers)[b"host"])
        for _, url, request in run_virtually(scenario()).sent
    ]

    assert asked == [
        ("http://10.0.0.1", b"/health", b"10.0.0.1"),
        ("http://10.0.0.2", b"/own?deep=1", b"10.0.0.2"),
        ("http://10.9.9.9:81/base", b"/base/health", b"10.9.9.9:81"),
        ("http://10.0.0.4/api", b"/api/health", b"10.0.0.4"),
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UpstreamConnectError("the upstream is shut down"), "the upstream is shut down"),
        (RuntimeError("a bug"), "RuntimeError"),
    ],
    ids=["closed", "bug"],
)
def test_prober_goes_on_after_any_exception_of_a_probe(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After an expected one, and after one that is a bug."""

    async def scenario() -> Probed:
        async def reply(url: str, request: OutgoingRequest) -> int:
            raise error

        probed = Probed(pool_of(2), reply, interval=10)
        probed.prober.start()
        await probed.run(15)
        probed.reply = well
        await probed.run(10)
        await probed.end()
        return probed

    probed = run_virtually(scenario())

    assert len(probed.sent_to(0)) == 3
    assert all(one.healthy for one in probed.pool.destinations)
    assert {event.reason for event in probed.told if isinstance(event, DestinationDown)} == {reason}
    unexpected = [one for one in caplog.records if "unexpectedly" in one.message]
    assert bool(unexpected) is isinstance(error, RuntimeError)
    assert {vars(one)["upstream"] for one in unexpected} <= {probed.pool.name}


def test_prober_follows_the_pool() -> None:
    """New destinations are probed at once, removed ones no longer."""

    async def scenario() -> Probed:
        probed = Probed(pool_of(2), well, interval=10)
        probed.prober.start()
        await probed.run(5)
        probed.supervisor.replace([settings_of(1), settings_of(2)])
        probed.prober.start()
        await probed.run(11)
        await probed.end()
        return probed

    probed = run_virtually(scenario())
    times = [round(at - 1000, 3) for at, url, _ in probed.sent if url == "http://10.0.0.1"]

    assert times == [0]
    assert probed.sent_to(0) == [0, 10]
    assert probed.sent_to(1) == [5, 15]


def test_prober_reconfigured_probes_at_once() -> None:
    """With the new path and interval; HEAD is tried again."""

    async def scenario() -> Probed:
        probed = Probed(pool_of(1), well, interval=100)
        probed.prober.start()
        await probed.run(5)
        probed.prober.reconfigure(
            probed.prober.settings.model_copy(update={"path": "/other", "interval": 10.0})
        )
        await probed.run(11)
        await probed.end()
        return probed

    probed = run_virtually(scenario())

    assert probed.sent_to(0) == [0, 5, 15]
    assert [request.target for _, _, request in probed.sent] == [b"/health", b"/other", b"/other"]


def test_prober_without_path_sends_nothing() -> None:
    """Until new settings turn probes on."""

    async def scenario() -> tuple[int, int]:
        probed = Probed(pool_of(1), well, path=None)
        await probed.prober.sweep()
        probed.prober.start()
        await probed.run(100)
        before = len(probed.sent)
        probed.prober.reconfigure(HealthSettings(path="/"))
        await probed.run(1)
        await probed.end()
        return before, len(probed.sent)

    assert run_virtually(scenario()) == (0, 1)


async def test_prober_sends_the_headers_and_the_host_of_the_settings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also after ``configure_health``; no log shows a value."""
    caplog.set_level(logging.DEBUG)
    health = {
        "path": "/health",
        "host": "tenant.example",
        "headers": {"Authorization": "Bearer s3cret", "user-agent": "checks/1"},
    }
    async with (
        ScriptedOrigin(always(response_bytes(503))) as origin,
        Balancer.from_settings(billing(origin.url, health=health)) as balancer,
    ):
        balancer.configure_health(path="/other")
        await until(lambda: len(origin.requests) == 2)

    assert [seen.target for seen in origin.requests] == [b"/health", b"/other"]
    for seen in origin.requests:
        assert seen.all(b"host") == [b"tenant.example"]
        assert seen.all(b"authorization") == [b"Bearer s3cret"]
        assert seen.all(b"user-agent") == [b"checks/1"]
    assert "s3cret" not in caplog.text


@pytest.mark.e2e
async def test_first_sweep_is_over_before_the_first_request() -> None:
    """A destination that is down at start gets no request, though the policy prefers it."""
    async with (
        ScriptedOrigin(always(response_bytes(503))) as down,
        ScriptedOrigin() as up,
        gateway(down.url, up.url, policy="first", health={"path": "/health"}) as gate,
    ):
        reply = await fetch(gate.address, target="/billing/x")

    assert reply.status == 200
    assert [seen.target for seen in down.requests] == [b"/health"]
    assert [seen.target for seen in up.requests] == [b"/health", b"/x"]


class Shared:
    """Leaves probes to another process until they are this one's."""

    def __init__(self) -> None:
        self.ours = False
        self.told: list[str] = []

    def probes(self, destination: Destination) -> bool:
        """Say whose the probes are."""
        return self.ours

    def probed(self, destination: Destination, reason: str) -> None:
        """Record a probe."""
        self.told.append(destination.url)

    def reconfigured(self) -> None:
        """Do nothing."""


def test_prober_sends_no_probes_of_another_process() -> None:
    """They begin at once when they are this process's, and a result that was followed stands."""

    async def scenario() -> tuple[Probed, Shared]:
        probed = Probed(pool_of(2), well, interval=15)
        shared = probed.prober.sharing = Shared()
        first = probed.pool.destinations[0]
        probed.supervisor.follow_health(first, False, None, "status 503")
        await probed.prober.sweep()
        probed.prober.start()
        await probed.run(40)
        assert not first.healthy
        shared.ours = True
        probed.prober.hasten([first])
        await probed.run(1)
        assert first.healthy
        await probed.run(20)
        await probed.end()
        return probed, shared

    probed, shared = run_virtually(scenario())

    assert probed.sent_to(0) == [40, 55]
    assert probed.sent_to(1) == [0, 45, 60]
    assert len(shared.told) == len(probed.sent)

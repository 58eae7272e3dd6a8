"""Probes and readmissions that somebody asks for."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_proxy_di import (
    Balancer,
    DestinationDown,
    DestinationEjected,
    DestinationReadmitted,
    DestinationUp,
    Event,
    SettingsError,
)
from tests.support.gateways import billing, gateway, until
from tests.support.http_client import fetch
from tests.support.origins import Connection, ScriptedOrigin, always, response_bytes
from tests.support.servers import dead_port

pytestmark = pytest.mark.e2e

HEALTH = {"path": "/health", "interval": "1h", "fall": 1}


class Sick:
    """Responds to probes with its status."""

    def __init__(self) -> None:
        self.status = 503

    async def __call__(self, connection: Connection) -> None:
        """Respond to every request."""
        while True:
            await connection.read_request()
            await connection.send(response_bytes(self.status))


async def test_probe_counts_like_a_regular_one() -> None:
    """The probe changes the health, and returns whether it was good."""
    script, heard = Sick(), list[Event]()
    async with (
        ScriptedOrigin(script) as origin,
        Balancer.from_settings(billing(origin.url, health=HEALTH)) as balancer,
    ):
        balancer.subscribe(heard.append)
        bad = await balancer.probe(origin.url)
        reason = balancer.status().destinations[0].reason
        script.status = 200
        good = await balancer.probe(origin.url + "/")
        after = balancer.status().destinations[0]

    assert (bad, reason) == (False, "status 503")
    assert good
    assert (after.state, after.reason) == ("available", "")
    assert [type(one) for one in heard if one.destination] == [DestinationUp]


async def test_probe_needs_a_destination_and_probes() -> None:
    """The errors name what is missing."""
    async with Balancer.from_settings(billing("http://10.0.0.1")) as balancer:
        with pytest.raises(ValueError, match=r"has no destination 'http://10\.0\.0\.9'; it has"):
            await balancer.probe("http://10.0.0.9")
        with pytest.raises(ValueError, match=r"billing has no probes; set health\.path"):
            await balancer.probe("http://10.0.0.1")


async def test_message_about_an_unknown_destination_has_no_password() -> None:
    """The address may have been meant for another upstream."""
    async with Balancer.from_settings(billing("http://10.0.0.1")) as balancer:
        with pytest.raises(ValueError, match=r"no destination 'http://\*\*\*@10.0.0.9'"):
            balancer.undrain("http://user:s3cret@10.0.0.9")


async def test_probe_of_a_destination_that_leaves() -> None:
    """The result changes nothing and emits no event."""
    reached, go, heard = asyncio.Event(), asyncio.Event(), list[Event]()

    async def script(connection: Connection) -> None:
        await connection.read_request()
        if len(origin.requests) > 1:  # the first one is the probe at start
            reached.set()
            await go.wait()
        await connection.send(response_bytes(503 if reached.is_set() else 200))

    async with (
        ScriptedOrigin(script) as origin,
        Balancer.from_settings(billing(origin.url, health=HEALTH)) as balancer,
    ):
        probe = asyncio.create_task(balancer.probe(origin.url))
        await reached.wait()
        balancer.replace_destinations([f"http://127.0.0.1:{dead_port()}"])
        balancer.subscribe(heard.append)
        go.set()
        good = await probe
        await until(lambda: any(isinstance(one, DestinationDown) for one in heard))

    assert not good
    assert origin.url not in [one.destination for one in heard]


async def test_readmit_ends_an_ejection() -> None:
    """With an event and a new time; in another state nothing happens."""
    heard: list[Event] = []
    dead = f"http://127.0.0.1:{dead_port()}"
    async with (
        ScriptedOrigin(always(response_bytes())) as origin,
        gateway(origin.url, dead, policy="round_robin", ejection={"consecutive": 2}) as gate,
    ):
        balancer = gate.balancer
        balancer.subscribe(heard.append)
        while balancer.destinations[1].state != "ejected":
            assert (await fetch(gate.address, target="/billing/x")).status == 200
        ejected = balancer.status().destinations[1]
        await asyncio.to_thread(balancer.readmit, dead)
        balancer.readmit(dead)
        balancer.readmit(origin.url)
        after = balancer.status().destinations[1]

    assert (ejected.state, ejected.reason, ejected.ejections) == ("ejected", "connect", 1)
    assert (after.state, after.reason, after.ejected_for) == ("available", "", None)
    assert after.since > ejected.since
    assert [type(one) for one in heard] == [DestinationEjected, DestinationReadmitted]


async def test_readmit_ends_a_cool_down() -> None:
    """The destination asked for it by ``Retry-After``, and may be asked again at once."""
    limited = always(response_bytes(429, headers=[(b"Retry-After", b"60")]))
    ejection = {"respect_retry_after": True}
    async with (
        ScriptedOrigin(limited) as origin,
        ScriptedOrigin(always(response_bytes())) as other,
        gateway(origin.url, other.url, policy="first", ejection=ejection) as gate,
    ):
        await fetch(gate.address, target="/billing/x")
        asked = gate.balancer.status().destinations[0]
        gate.balancer.readmit(origin.url)

        assert (asked.state, asked.reason) == ("ejected", "retry_after")
        assert gate.balancer.status().destinations[0].state == "available"
        assert (await fetch(gate.address, target="/billing/x")).status == 429


async def test_settings_of_telemetry_outside_an_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are those of the environment, as in an app."""
    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__METRICS", "false")
    async with Balancer.from_settings(billing("http://10.0.0.1")) as balancer:
        assert balancer._running.instruments is None

    monkeypatch.setenv("FASTAPI_PROXY_TELEMETRY__PROPAGATE", "b3")
    with pytest.raises(SettingsError, match="FASTAPI_PROXY_TELEMETRY__PROPAGATE"):
        await Balancer.from_settings(billing("http://10.0.0.1")).__aenter__()

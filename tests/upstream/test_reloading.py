"""Settings are changed while requests run, on real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastapi_proxy_di import Reloaded, ReloadFailed, SettingsError
from fastapi_proxy_di.settings import DestinationSettings, UpstreamSettings
from fastapi_proxy_di.supervision.events import DestinationReadmitted, Event
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.reloading import prepared_reload
from tests.support.gateways import billing, gateway, until
from tests.support.held import Holding, get, holding, statuses
from tests.support.origins import ScriptedOrigin

pytestmark = pytest.mark.e2e


async def test_requests_end_by_the_rules_they_began_with() -> None:
    """A request under way gets the old headers, the next one the new ones, on one connection."""
    async with holding(response_headers={"x-rules": "old"}, timeouts={"total": 30}) as held:
        await held.hold(1)
        changed = await held.reload(response_headers={"x-rules": "new"}, timeouts={"total": 20})
        held.release()
        first = await held.tasks[0]
        second = await get(held.gate)

        assert changed == ("timeouts.total", "response_headers.x-rules")
        assert (b"x-rules", b"old") in first.headers
        assert (b"x-rules", b"new") in second.headers
        assert (first.body, second.body) == (b"1", b"1")
        assert held.gate.balancer.settings.timeouts.total == 20


async def test_destinations_that_stay_keep_connections_and_counts() -> None:
    """One stays with another weight, one goes, one comes; an ejected one stays ejected."""
    async with (
        ScriptedOrigin(Holding()) as stays,
        ScriptedOrigin(Holding()) as goes,
        ScriptedOrigin(Holding()) as comes,
        gateway(stays.url, goes.url, policy="first") as gate,
    ):
        balancer = gate.balancer
        await statuses(gate, 2)
        kept, weighted = balancer.destinations[0], DestinationSettings(url=stays.url, weight=5)
        balancer._running.pool.eject(balancer.destinations[1], 1e9)
        await balancer.reload(billing(destinations=[weighted, goes.url, comes.url], policy="first"))
        states = [one.state for one in balancer.destinations]
        await balancer.reload(billing(destinations=[weighted, comes.url]))
        await statuses(gate, 6)

        assert balancer.destinations[0] is kept
        assert states == ["available", "ejected", "available"]
        assert (kept.weight, stays.connections) == (5, 1)
        assert [one.url for one in balancer.destinations] == [stays.url, comes.url]


async def test_changes_by_code_stay_unless_their_setting_changes() -> None:
    """What `configure_health` and `replace_destinations` have set outlives other changes."""
    async with ScriptedOrigin() as one, ScriptedOrigin() as two, gateway(one.url) as gate:
        balancer = gate.balancer
        balancer.configure_health(interval=77)
        balancer.replace_destinations([two.url])
        await balancer.reload(billing(one.url, slow_start=3))
        kept = balancer.health.interval, [destination.url for destination in balancer.destinations]
        await balancer.reload(billing(two.url, one.url, slow_start=3, health={"interval": 66}))

        assert kept == (77, [two.url])
        assert balancer.health.interval == 66
        assert [destination.url for destination in balancer.destinations] == [two.url, one.url]


async def test_ejection_that_is_turned_off_ends() -> None:
    """An ejected destination is readmitted, and an event says why."""
    events: list[Event] = []
    async with holding() as held:
        balancer = held.gate.balancer
        balancer.subscribe(events.append)
        running = balancer._running
        running.pool.eject(balancer.destinations[0], 1e9)
        await held.reload(ejection={"enabled": False})

        assert not balancer.destinations[0].ejected
        reasons = [one.reason for one in events if isinstance(one, DestinationReadmitted)]
        assert reasons == ["ejection is turned off"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"policy": "no.such:Policy"}, "policy .*: 'no.such:Policy' cannot be imported"),
        ({"tls": {"client_cert": __file__}}, r"tls\.client_cert .* cannot be used"),
        ({"destinations": ["asgi://no.such:app"]}, "importing no.such failed"),
    ],
)
async def test_fault_that_only_making_finds_changes_nothing(
    settings: dict[str, Any], text: str
) -> None:
    """Neither the fault nor a good change beside it has an effect; subscribers learn of it."""
    events: list[Event] = []
    async with ScriptedOrigin() as origin, gateway(origin.url) as gate:
        balancer = gate.balancer
        balancer.subscribe(events.append)
        before, rules = balancer.destinations, balancer._running.rules
        given = {"destinations": [origin.url, "https://127.0.0.1:1"], "slow_start": 5, **settings}
        with pytest.raises(SettingsError, match=text) as fault:
            await balancer.reload(billing(**given))

        assert balancer.destinations is before
        assert balancer._running.rules is rules
        assert await statuses(gate, 1) == [200]
        [event] = events
        assert isinstance(event, ReloadFailed)
        assert event.faults[0] in str(fault.value)
        status = balancer.status().reload
        assert (status.at, status.failed_at is None) == (None, False)
        await balancer.reload(balancer.settings)
        assert balancer.status().reload.failed_at is None


async def test_name_cannot_be_changed() -> None:
    """Settings of another upstream are refused."""

    class Other(UpstreamSettings, name="other"):
        """Another upstream."""

    async with holding() as held:
        with pytest.raises(
            SettingsError, match=r"upstream 'billing': .* are named 'other'; a reload"
        ):
            await held.gate.balancer.reload(Other(destinations=["http://a"]))


async def test_reload_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Event, log and status name the fields, and no value; a reload of nothing is silent."""
    caplog.set_level("INFO", "fastapi_proxy_di.reload")
    events: list[Event] = []
    async with holding() as held:
        held.gate.balancer.subscribe(events.append)
        await held.reload(request_headers={"x-key": "secret"}, max_requests=7)
        status = held.gate.balancer.status().reload
        await held.reload(request_headers={"x-key": "secret"}, max_requests=7)

        fields = ("max_requests", "request_headers.x-key")
        assert events == [Reloaded("billing", None, fields)]
        assert (status.changed, status.overridden, status.failed_at) == (fields, {}, None)
        assert held.gate.balancer.status().reload == status
        assert [record.getMessage() for record in caplog.records] == [
            "billing has reloaded its settings (changed: max_requests, request_headers.x-key)"
        ]


async def test_fields_that_stay_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A field that a source before the file sets is named with this source."""
    caplog.set_level("INFO", "fastapi_proxy_di.reload")
    async with holding() as held:
        running = held.gate.balancer._running
        async with prepared_reload({running: running.settings}) as prepared:
            prepared.apply({"billing": {"policy": "UPSTREAM_BILLING_POLICY (environment)"}})
        status = held.gate.balancer.status().reload

        assert status.overridden == {"policy": "UPSTREAM_BILLING_POLICY (environment)"}
        assert (
            caplog.records[0]
            .getMessage()
            .endswith("not changed: policy, which UPSTREAM_BILLING_POLICY (environment) sets)")
        )


async def test_probes_go_on_by_the_new_settings() -> None:
    """A reload while a probe is under way ends that probe and sends one at once."""
    script = Holding()
    async with (
        ScriptedOrigin(script) as origin,
        gateway(origin.url, health={"path": "/", "interval": 60}) as gate,
    ):
        await gate.balancer.reload(billing(origin.url, health={"path": "/held", "interval": 60}))
        await until(lambda: origin.requests[-1].target == b"/held")
        await gate.balancer.reload(
            billing(
                origin.url,
                health={"path": "/new", "interval": 60, "headers": {"x-probe": "1"}},
            )
        )
        await until(lambda: origin.requests[-1].target == b"/new")
        script.go.set()

        assert (b"x-probe", b"1") in origin.requests[-1].headers
        assert gate.balancer.available
        await gate.balancer.reload(billing(origin.url))
        assert not gate.balancer.health.enabled


async def test_sources_are_asked_anew_by_other_settings(tmp_path: Path) -> None:
    """What they have found serves until they have answered."""
    file = tmp_path / "found.toml"
    file.write_text('destinations = ["http://127.0.0.1:1"]')
    running = compose(billing(f"file://{file}"))
    try:
        await running.start()
        before = running.pool.destinations
        changed = await Balancer(running).reload(billing(f"file://{file}", discovery={"keep": 7}))
        [searcher] = running.discovery.searchers
        await until(lambda: searcher.destinations)

        assert changed == ("discovery.keep",)
        assert searcher.search.settings.keep == 7
        assert running.pool.destinations is before
    finally:
        await running.aclose()


async def test_window_of_failures_begins_anew_with_its_length() -> None:
    """Failures of a window of another length do not count; an app of this process stays."""
    given = ["http://127.0.0.1:1", "asgi://tests.support.models:models"]
    running = compose(billing(*given, ejection={"consecutive": 2}))
    transports = running.transports.all()
    running.supervisor.failed(running.pool.destinations[0], "reset")
    await Balancer(running).reload(
        billing(*given, ejection={"consecutive": 2, "window": 7}, http_version="2")
    )
    running.supervisor.failed(running.pool.destinations[0], "reset")
    kept = [one for one in running.transports.all() if one in transports]
    ejected = running.pool.destinations[0].ejected
    await running.aclose()

    assert not ejected
    assert transports[1] in kept

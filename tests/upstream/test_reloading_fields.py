"""Each setting changes a running upstream, or is in the list of those that do not.

A reloaded upstream must look like one that is started with the new settings: the pictures of both
are compared part by part, so that no part keeps an old setting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from pydantic import BaseModel

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.integration.reloading import FIXED_OF_APP
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.settings import ProxySettings, TelemetrySettings, UpstreamSettings
from fastapi_proxy_di.settings.fields import LISTS, fields_at
from fastapi_proxy_di.upstream.balancer import Balancer
from fastapi_proxy_di.upstream.composition import compose
from fastapi_proxy_di.upstream.reloading import FIXED, prepared_reload
from fastapi_proxy_di.upstream.running import RunningUpstream
from tests.support.gateways import until
from tests.support.pictures import first_difference, picture

URL: Final = "http://127.0.0.1:1"
WITH_TLS: Final = {"destinations": ["https://127.0.0.1:1"]}

IGNORED: Final = frozenset(
    {
        "_added",
        "_contexts",
        "_counts",
        "_failed",
        "_leaving",
        "_left",
        "_left_at",
        "_marks",
        "_not_read",
        "_removed",
        "_retired",
        "_started",
        "_subscriptions",
        "_sweep",
        "_tasks",
        "_trim",
        "events",
        "_events",
        "instruments",
        "policies",
        "reload_notes",
        "started",
        "unlimited",
    }
)
"""What differs between two upstreams with the same settings: times, tasks, the past."""


class Billing(UpstreamSettings, name="billing"):
    """The upstream of these tests."""


def nested(field: str, value: Any) -> dict[str, Any]:
    """Give the settings with one field, which may be part of a section."""
    section, _, name = field.partition(".")
    return {section: {name: value}} if name else {section: value}


COOKIE: Final = {"cookie": "stay", "key": "k" * 32}

HELD: Final = {"streams": {"first_event": 9}}

FIELDS: Final[dict[str, Any]] = {
    "hash_key": "header:x-key",
    "health.path": "/up",
    "health.method": "HEAD",
    "health.headers": {"authorization": "Bearer x"},
    "health.host": "example.org",
    "health.interval": 3,
    "health.jitter": 0.5,
    "health.timeout": 2,
    "health.fall": 9,
    "health.rise": 8,
    "health.expected": "204",
    "health.unhealthy_interval": 1,
    "health.body_match": "ok",
    "ejection.enabled": False,
    "ejection.window": 7,
    "ejection.minimum_requests": 3,
    "ejection.failure_rate": 0.9,
    "ejection.consecutive": 2,
    "ejection.base_time": 5,
    "ejection.max_time": 400,
    "ejection.max_share": 0.1,
    "ejection.statuses": "503",
    "ejection.respect_retry_after": True,
    "ejection.key": "header:authorization",
    "ejection.shared": "off",
    "slow_start": 10,
    "discovery.refresh": 3,
    "discovery.nameservers": "127.0.0.1",
    "discovery.keep": 3,
    "discovery.on_empty": "drop",
    "discovery.family": "ipv6",
    "allowed_destinations.origins": "http://*.example.org:8080",
    "allowed_destinations.networks": "10.0.0.0/8",
    "when_none_available": "fail",
    "retries.attempts": 3,
    "retries.methods": "GET",
    "retries.statuses": "503",
    "retries.refused_statuses": "503",
    "retries.replay_bytes": 7,
    "retries.budget_share": 0.5,
    "retries.budget_minimum": 3,
    "retries.backoff": 0.5,
    "retries.duration": 2,
    "retries.hedge_after": 1,
    "timeouts.connect": 2,
    "timeouts.resolve": 2,
    "timeouts.activity": 2,
    "timeouts.first_byte": 2,
    "timeouts.ping": 2,
    "timeouts.total": 2,
    "limits.max_in_flight": 3,
    "limits.queue": 3,
    "limits.queue_timeout": 3,
    "limits.max_body_bytes": 3,
    "limits.max_response_header_bytes": 2000,
    "limits.idle_connections": 3,
    "limits.idle_seconds": 3,
    "limits.expect_continue": 3,
    "limits.dynamic_destinations": 3,
    "max_requests": 3,
    "max_requests_window": 3,
    "forwarded.mode": "append",
    "forwarded.trusted_proxies": "10.0.0.0/8",
    "forwarded.rfc7239": True,
    "forwarded.via": False,
    "preserve_host": True,
    "dot_segments": "pass",
    "header_case": "title",
    "request_headers": {"x-a": "b"},
    "remove_request_headers": "x-a",
    "response_headers": {"x-a": "b"},
    "remove_response_headers": "x-a",
    "response_server_headers": "pass",
    "location": "pass",
    "transforms": [{"kind": "request_header", "name": "x-a", "set": "b"}],
    "websocket.max_message_bytes": 3,
    "websocket.ping_interval": 3,
    "websocket.ping_timeout": 3,
    "websocket.open_timeout": 3,
    "websocket.compression": True,
    "explain": "log",
}
"""A value other than the default of each field that needs nothing else."""

CASES: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "destinations.url": ({}, {"destinations": ["http://127.0.0.1:2"]}),
    **{
        f"destinations.{name}": (
            {"health": {"path": "/up"}},
            {"health": {"path": "/up"}, "destinations": [{"url": URL, name: value}]},
        )
        for name, value in {
            "weight": 3,
            "max_requests": 3,
            "max_in_flight": 3,
            "host": "example.org",
            "health_path": "/other",
            "health_url": "http://127.0.0.1:3/",
            "tier": 1,
            "metadata": {"zone": "a"},
        }.items()
    },
    **{field: ({}, nested(field, value)) for field, value in FIELDS.items()},
    "tls.verify": (WITH_TLS, WITH_TLS | {"tls": {"verify": False}}),
    "tls.server_name": (WITH_TLS, WITH_TLS | {"tls": {"server_name": "example.org"}}),
    "http_version": ({}, {"http_version": "2"}),
    "policy (a name)": ({}, {"policy": "hash"}),
    "ejection.key (in the body)": ({}, {"ejection": {"key": "body:model"}}),
    "ejection.key_statuses": (
        {"ejection": {"key": "query:key"}},
        {"ejection": {"key": "query:key", "key_statuses": "429"}},
    ),
    "prefix_bytes": ({"policy": "prefix"}, {"policy": "prefix", "prefix_bytes": 7}),
    "streams.first_event": ({}, {"streams": {"first_event": 1}}),
    "streams.first_event_when": (
        HELD,
        {"streams": {"first_event": 9, "first_event_when": "openai"}},
    ),
    "streams.idle": ({}, {"streams": {"idle": 1}}),
    "streams.heartbeat": ({}, {"streams": {"heartbeat": 1}}),
    "streams.retry": (HELD, {"streams": {"first_event": 9, "retry": True}}),
    "limits.replay_total_bytes": (HELD, {**HELD, "limits": {"replay_total_bytes": 7}}),
    "streams.replay_bytes": (
        {"policy": "prefix"},
        {"policy": "prefix", "streams": {"replay_bytes": 7}},
    ),
    "affinity.cookie": ({"affinity": COOKIE}, {"affinity": {**COOKIE, "cookie": "other"}}),
    "allowed_destinations.credentials": (
        {"allowed_destinations": {"networks": ["10.0.0.0/8"]}},
        {"allowed_destinations": {"networks": ["10.0.0.0/8"], "credentials": True}},
    ),
    "affinity.header": ({"affinity": {"header": "x-a"}}, {"affinity": {"header": "x-b"}}),
    "affinity.issue": (
        {"affinity": {"header": "x-a", "key": "k" * 32}},
        {"affinity": {"header": "x-a", "key": "k" * 32, "issue": True}},
    ),
    "affinity.key": ({"affinity": COOKIE}, {"affinity": {**COOKIE, "key": "l" * 32}}),
    "affinity.same_site": ({"affinity": COOKIE}, {"affinity": {**COOKIE, "same_site": "strict"}}),
    "affinity.max_age": ({"affinity": COOKIE}, {"affinity": {**COOKIE, "max_age": 60}}),
    "affinity.domain": ({"affinity": COOKIE}, {"affinity": {**COOKIE, "domain": "example.org"}}),
    "affinity.on_missing": ({"affinity": COOKIE}, {"affinity": {**COOKIE, "on_missing": "fail"}}),
}
"""For each field, settings and the settings that change it."""

FILES: Final = frozenset({"tls.ca_file", "tls.client_cert", "tls.client_key"})
"""Fields that name files; `test_files_of_tls` changes them."""

OF_THE_APP: Final = frozenset(
    {"telemetry.tracing", "telemetry.metrics", "telemetry.propagate", "telemetry.baggage"}
)


def walked(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[str]:
    """Give each field, those of sections too; transforms are one field."""
    for name, section in fields_at(model, at):
        if section is None or (name in LISTS and name != "destinations"):
            yield ".".join((*at, name))
        else:
            yield from walked(model, (*at, name))


async def pictured(upstream: RunningUpstream) -> Any:
    """Give the picture of an upstream, and close it."""
    pool, transports = upstream.pool, upstream.transports
    try:
        await until(lambda: len(transports.by_destination) == len(pool.destinations))
        upstream.supervisor._mark()
        if upstream.rules.guarded_factory is None and upstream.dynamic is not None:
            # Dynamic destinations were allowed before; nothing reaches what is left of that.
            assert len(upstream.dynamic.destinations) == 0
            upstream.dynamic.discard()
            upstream.dynamic = None
        return picture(upstream, IGNORED)
    finally:
        await upstream.aclose()


def settings(given: dict[str, Any]) -> Billing:
    """Give settings with a destination, and others that requests may name."""
    dynamic = {"networks": ["127.0.0.0/8"]}
    return Billing(**{"destinations": [URL], "allowed_destinations": dynamic, **given})


def test_every_field_is_in_a_table() -> None:
    """A new field fails here until it has a row, or a reason why it stays."""
    known = {field.partition(" (")[0] for field in CASES} | FILES | FIXED.keys()

    assert set(walked(UpstreamSettings)) == known


def test_every_field_of_the_app_is_in_a_table() -> None:
    """The same for the settings of an app; the others are tested with `reload_upstreams`."""
    fields = {field for field in walked(ProxySettings) if "." in field}

    assert {field for field in fields if field.partition(".")[0] not in FIXED_OF_APP} == OF_THE_APP


@pytest.mark.parametrize("field", CASES)
async def test_reloaded_upstream_is_like_a_new_one(field: str) -> None:
    """No part of a reloaded upstream has an old setting, and the field is named."""
    before, after = map(settings, CASES[field])
    reloaded = compose(before)
    changed = await Balancer(reloaded).reload(after)
    found, wanted = await pictured(reloaded), await pictured(compose(after))

    assert changed
    assert changed[0].startswith(field.partition(" (")[0]) or field.startswith(changed[0])
    assert first_difference(found, wanted) is None
    assert first_difference(await pictured(compose(before)), wanted)


@pytest.mark.parametrize("field", CASES)
async def test_field_is_changed_back(field: str) -> None:
    """The way back is as complete as the way there."""
    before, after = map(settings, CASES[field])
    reloaded = compose(after)
    await Balancer(reloaded).reload(before)

    difference = first_difference(await pictured(reloaded), await pictured(compose(before)))
    assert difference is None


@pytest.mark.parametrize("field", sorted(OF_THE_APP))
async def test_telemetry_is_changed(field: str) -> None:
    """The settings of the app reach its upstreams."""
    value = {"telemetry.propagate": "off", "telemetry.baggage": "pass"}.get(field, False)
    given = nested(field, value)["telemetry"]
    reloaded = compose(settings({}))
    telemetry = Telemetry(TelemetrySettings(**given))
    async with prepared_reload({reloaded: reloaded.settings}, telemetry) as prepared:
        prepared.apply()
    wanted = compose(settings({}), telemetry=telemetry)

    assert (reloaded.instruments is None) == (wanted.instruments is None)
    assert first_difference(await pictured(reloaded), await pictured(wanted)) is None


async def test_files_of_tls(tmp_path: Path) -> None:
    """Each file is read again, and new transports have a new context."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    certificate.private_key_pem.write_to_path(key)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(cert, append=True)
    running = compose(settings(WITH_TLS))
    balancer = Balancer(running)

    changed = [
        await balancer.reload(settings(WITH_TLS | {"tls": tls}))
        for tls in (
            {"ca_file": ca},
            {"ca_file": ca, "client_cert": cert, "client_key": key},
            {"ca_file": ca, "client_cert": cert, "client_key": key},
        )
    ]
    trustme.CA().cert_pem.write_to_path(ca)
    changed.append(await balancer.reload(running.settings))
    ca.unlink()
    with pytest.raises(SettingsError, match=r"tls\.ca_file"):
        await balancer.reload(running.settings)
    await running.aclose()

    assert changed == [("tls.ca_file",), ("tls.client_cert", "tls.client_key"), (), ("tls",)]


class Turns:
    """A policy of one's own."""

    name = "turns"
    pick = max


async def test_policy_object_stays() -> None:
    """A declared class makes a copy of its object for each reading, which has learned nothing."""
    first = settings({"policy": Turns()})
    running = compose(first)
    changed = await Balancer(running).reload(settings({"policy": Turns()}))
    policy = running.rules.policy
    back = await Balancer(running).reload(settings({}))
    await running.aclose()

    assert policy is first.policy
    assert (changed, back) == ((), ("policy",))


def test_reasons_are_given() -> None:
    """Each fixed field has a reason."""
    assert all(len(reason.split()) > 5 for reason in FIXED.values())
    assert asyncio.iscoroutinefunction(Balancer.reload)

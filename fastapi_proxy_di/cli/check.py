"""``check``: validates the settings and probes every destination once.

Probes and connections are those of the library, so the check finds what a gateway would find.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from fastapi_proxy_di.cli.arguments import Arguments
from fastapi_proxy_di.cli.env_files import add_variables
from fastapi_proxy_di.cli.found import FOUND_HEADS, found_rows, has_fault
from fastapi_proxy_di.cli.mentions import named
from fastapi_proxy_di.cli.origins import given_in_code, origins
from fastapi_proxy_di.cli.store_check import store_warnings
from fastapi_proxy_di.cli.tables import print_table
from fastapi_proxy_di.errors import ProxyError, SettingsError
from fastapi_proxy_di.integration.runtime import compose_all
from fastapi_proxy_di.settings import (
    DestinationSettings,
    ProxySettings,
    UpstreamSettings,
    read_all,
    read_proxy_settings,
    settings_error,
    unknown_variables,
)
from fastapi_proxy_di.supervision.events import DestinationDown, Event, Events
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.upstream.running import RunningUpstream


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of the probe of one destination.

    Attributes:
        upstream: Name of the upstream.
        destination: Address of the destination.
        probe: The kind of probe, e.g. ``"GET /health"``.
        fault: Why the probe failed, ``""`` if it succeeded.
        milliseconds: Duration of the probe, ``None`` if it failed.
    """

    upstream: str
    destination: str
    probe: str
    fault: str
    milliseconds: float | None


def run(arguments: Arguments) -> int:
    """Check upstreams by their settings.

    Args:
        arguments: The command line. Its names are those of upstreams, whose settings are those
            of the environment, settings classes as ``package.module:Billing``, or apps as
            ``package.module:app``, which are imported and not started.

    Returns:
        0 if every probe succeeded, 1 if one failed or a source found nothing, 2 if the settings
        are wrong.
    """
    try:
        add_variables(arguments.env_files, os.environ)
        given = named(arguments.names)
        settings, faults = read_all(given.mentions)
        of_app, more = (given.settings, []) if given.settings else read_proxy_settings()
        faults += more
        findings, found = asyncio.run(_probe_all(settings, faults))
        of_store = [] if of_app is None else asyncio.run(store_warnings(of_app.cluster))
    except SettingsError as error:
        print(error, file=sys.stderr)  # a fault report names unknown variables itself
        return 2
    for kind in (ProxySettings, *map(type, settings.values())):
        for warning in unknown_variables(kind, os.environ, settings):
            print(f"warning: {warning}", file=sys.stderr)
    for warning in of_store:
        print(f"warning: {warning}", file=sys.stderr)
    for route in given.shadowed:
        print(f"warning: no request reaches {route}; declare it before the mount", file=sys.stderr)
    if given.places:
        print_table(
            ["upstream", "place", "requests", "use"],
            [[one.upstream, one.path, one.requests, one.kind] for one in given.places],
        )
        print()
    if found:
        print_table(FOUND_HEADS, found)
        print()
    print_table(
        ["upstream", "destination", "probe", "result", "time"],
        [
            [
                finding.upstream,
                finding.destination,
                finding.probe,
                finding.fault or "ok",
                "-" if finding.milliseconds is None else f"{finding.milliseconds:.1f} ms",
            ]
            for finding in findings
        ],
    )
    print()
    print_table(
        ["upstream", "setting", "value", "source"],
        [
            row
            for name, one in settings.items()
            for row in (
                given_in_code(name, one, UpstreamSettings)
                if one is given.mentions[name]
                else origins(name, one, UpstreamSettings)
            )
        ]
        + _origins_of_app(given.settings, of_app),
    )
    return 1 if any(finding.fault for finding in findings) or has_fault(found) else 0


def _origins_of_app(in_code: ProxySettings | None, read: ProxySettings | None) -> list[list[str]]:
    if in_code is not None:
        return given_in_code("(app)", in_code, ProxySettings)
    return [] if read is None else origins("(app)", read, ProxySettings)


async def _probe_all(
    settings: Mapping[str, UpstreamSettings], faults: list[str]
) -> tuple[list[Finding], list[list[str]]]:
    """Find and probe all destinations of all upstreams at the same time.

    Returns:
        The results of the probes, and what each source has found.

    Raises:
        SettingsError: There are faults, or composing the upstreams finds some.
    """
    # Only the events carry the reason of a failed probe.
    reasons: dict[tuple[str, str | None], str] = {}

    def keep_reason(event: Event) -> None:
        if isinstance(event, DestinationDown):
            reasons[event.upstream, event.destination] = event.reason

    events = Events()
    events.subscribe(keep_reason)
    logging.getLogger("fastapi_proxy_di").addHandler(logging.NullHandler())  # the table shows it
    upstreams = compose_all(settings, events, faults)
    try:
        if faults:
            raise settings_error(faults)
        await asyncio.gather(*(one.discovery.start(required=False) for one in upstreams))
        found = await asyncio.gather(
            *(
                _probe(one, reasons) if one.settings.health.enabled else _connect(one)
                for one in upstreams
            )
        )
        rows = [found_rows(one.settings.name, one.discovery.searchers) for one in upstreams]
    finally:
        for one in upstreams:
            await one.aclose()
    return [finding for findings in found for finding in findings], [*chain(*rows)]


async def _probe(
    upstream: RunningUpstream, reasons: Mapping[tuple[str, str | None], str]
) -> list[Finding]:
    """Send each destination the probe that a gateway would send."""
    settings = upstream.settings
    await upstream.prober.sweep()
    return [
        Finding(
            settings.name,
            destination.url,
            f"{settings.health.method} {destination.settings.health_path or settings.health.path}",
            reasons.get((settings.name, destination.url), ""),
            destination.latency_ms if destination.healthy else None,
        )
        for destination in upstream.pool.destinations
    ]


async def _connect(upstream: RunningUpstream) -> list[Finding]:
    """Open a connection to each destination."""
    settings = upstream.settings
    factory = TransportFactory(settings)
    destinations = [one.settings for one in upstream.pool.destinations]
    return await asyncio.gather(*(_connect_one(settings, factory, one) for one in destinations))


async def _connect_one(
    settings: UpstreamSettings, factory: TransportFactory, destination: DestinationSettings
) -> Finding:
    transport = factory.make(destination.address)
    began = time.monotonic()
    fault, milliseconds = "", None
    try:
        await transport.probe()
        milliseconds = (time.monotonic() - began) * 1000
    except ProxyError as error:
        fault = str(error)
    finally:
        await transport.aclose()
    probe = "TLS connection" if destination.address.scheme == "https" else "connection"
    return Finding(settings.name, destination.url, probe, fault, milliseconds)

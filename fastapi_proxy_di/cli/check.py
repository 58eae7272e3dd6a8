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

from pydantic import BaseModel

from fastapi_proxy_di.cli.arguments import Arguments
from fastapi_proxy_di.cli.env_files import add_variables
from fastapi_proxy_di.cli.found import FOUND_HEADS, found_rows, has_fault
from fastapi_proxy_di.cli.mentions import mentions_of
from fastapi_proxy_di.cli.tables import print_table
from fastapi_proxy_di.errors import ProxyError, SettingsError
from fastapi_proxy_di.integration.runtime import compose_all
from fastapi_proxy_di.settings import (
    DestinationSettings,
    ProxySettings,
    UpstreamSettings,
    effective_sources,
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
            of the environment, or settings classes as ``package.module:Billing``.

    Returns:
        0 if every probe succeeded, 1 if one failed or a source found nothing, 2 if the settings
        are wrong.
    """
    try:
        add_variables(arguments.env_files, os.environ)
        settings, faults = read_all(mentions_of(arguments.names))
        of_app, more = read_proxy_settings()
        faults += more
        findings, found = asyncio.run(_probe_all(settings, faults))
    except SettingsError as error:
        print(error, file=sys.stderr)  # a fault report names unknown variables itself
        return 2
    for kind in (ProxySettings, *map(type, settings.values())):
        for warning in unknown_variables(kind, os.environ, settings):
            print(f"warning: {warning}", file=sys.stderr)
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
        [row for one in settings.values() for row in _origins(one.name, one, UpstreamSettings)]
        + ([] if of_app is None else _origins("(app)", of_app, ProxySettings)),
    )
    return 1 if any(finding.fault for finding in findings) or has_fault(found) else 0


def _origins(
    name: str, settings: ProxySettings | UpstreamSettings, base: type[BaseModel]
) -> list[list[str]]:
    """Give upstream, setting, value and source of each setting that is not a default.

    Secrets stay masked. Fields that a declared class adds are listed without their values, since
    each may be a secret.
    """
    rows = []
    for field, source in effective_sources(type(settings)).items():
        if field.partition(".")[0] not in base.model_fields:
            rows.append([name, field, "(own field)", source])
        elif source != "default":
            value: object = settings
            for part in field.split("."):
                value = value.get(part) if isinstance(value, Mapping) else getattr(value, part)
            rows.append([name, field, _shown(value), source])
    return rows


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    return value.shown if isinstance(value, DestinationSettings) else str(value)


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

"""Changes the settings of running upstreams: all of them, or none.

1. What takes time or may fail is made of the new settings: TLS contexts, policies, transports,
   rules. Nothing has changed yet.
2. Everything is put in place without a pause, so that no request meets half of a change.

Requests under way keep the rules that they began with. What the settings do not decide stays:
counts, health and ejections of the destinations, and connections, unless TLS or the version of
HTTP changes. Reloads of one upstream run one after the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi_proxy_di.observability.changes import now
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import UpstreamSettings, describe_late_fault, differences
from fastapi_proxy_di.supervision.events import Reloaded, ReloadFailed
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.transport.protocol import Transport
from fastapi_proxy_di.upstream.control import apply_health
from fastapi_proxy_di.upstream.rules import make_rules, policy_of
from fastapi_proxy_di.upstream.running import ReloadNotes, RunningUpstream

__all__ = ["FIXED", "PreparedReload", "prepared_reload"]

_OF_THE_SUPERVISOR: Final = frozenset(
    {"ejection", "slow_start", "when_none_available", "discovery"}
)
"""The sections that the supervisor of the pool follows."""

FIXED: Final[Mapping[str, str]] = {
    "policy": (
        "an object that code gives as the policy stays, with what it has learned, as long as the"
        " settings give an object of its class"
    ),
    "discovery.required": "it decides whether an upstream starts",
    "strict_environment": "it decides how settings are read, each time they are",
}
"""The settings of an upstream that change nothing about a running one, each with the reason."""


class PreparedReload:
    """Changed settings of some upstreams, checked and made, but not yet in force.

    Args:
        upstreams: The upstreams that are to change.

    Attributes:
        faults: The faults that only making them has found; with any, ``apply`` must not be called.
    """

    def __init__(self, upstreams: Iterable[RunningUpstream]) -> None:
        self.faults: list[str] = []
        self._changes: list[_Change] = []
        self._upstreams: Final = tuple(upstreams)
        self._made: list[Transport] = []

    def apply(
        self, stayed: Mapping[str, Mapping[str, str]] | None = None
    ) -> dict[str, tuple[str, ...]]:
        """Put the changes in force.

        Args:
            stayed: By name of the upstream, the fields that a file gives and a source before it
                sets, each with that source.

        Returns:
            By name of the upstream, the fields that have changed.
        """
        changes, self._changes = self._changes, []
        self._made = [one for one in self._made if not any(change.uses(one) for change in changes)]
        for change in changes:
            change.apply((stayed or {}).get(change.running.name, {}))
        return {change.running.name: change.fields for change in changes}

    def failed(self, faults: list[str]) -> None:
        """Note at each upstream that its settings stay, because of faults."""
        for running in self._upstreams:
            running.reload_notes = running.reload_notes._replace(failed_at=now())
            running.events.emit(ReloadFailed(running.name, None, tuple(faults)))

    async def prepare(
        self, wanted: Mapping[RunningUpstream, UpstreamSettings], telemetry: Telemetry | None
    ) -> None:
        """Make everything for the settings of each upstream; changes nothing.

        Args:
            wanted: The new settings.
            telemetry: The new telemetry of the app, ``None`` for that of the upstreams.
        """
        factories: dict[RunningUpstream, TransportFactory] = {}
        for running, settings in wanted.items():
            if settings.name != running.name:
                self.faults.append(
                    f"upstream {running.name!r}: the given settings are named {settings.name!r};"
                    " a reload cannot change the name"
                )
                continue
            try:
                factories[running] = await running.transports.renewed(settings)
            except ValueError as error:
                self.faults.append(describe_late_fault(error, settings))
        # From here on without a pause: what is made must fit the upstream when it is applied.
        for running, factory in factories.items():
            if running.closed:
                continue
            settings = wanted[running]
            try:
                change = _Change(running, settings, telemetry, factory)
                change.make_transports(self._made)
                self._changes.append(change)
            except ValueError as error:
                self.faults.append(describe_late_fault(error, settings))

    async def discard(self) -> None:
        """Close what was made and is not in force."""
        while self._made:
            await self._made.pop().aclose()


@asynccontextmanager
async def prepared_reload(
    wanted: Mapping[RunningUpstream, UpstreamSettings], telemetry: Telemetry | None = None
) -> AsyncIterator[PreparedReload]:
    """Make everything for changed settings; ``PreparedReload.apply`` puts it in force.

    Within the block there must be no pause before ``apply``.

    Args:
        wanted: The new settings of each upstream.
        telemetry: The telemetry of the app if it changes, ``None`` for that of the upstreams.
    """
    async with AsyncExitStack() as locks:
        for running in sorted(wanted, key=lambda one: one.name):
            await locks.enter_async_context(running.reloading)
        prepared = PreparedReload(wanted)
        try:
            await prepared.prepare(wanted, telemetry)
            yield prepared
        finally:
            await prepared.discard()


class _Change:
    """The change of one upstream; making it changes nothing.

    Attributes:
        running: The upstream.
        fields: The fields that change.

    Raises:
        ValueError: A setting has a fault; the text begins with the setting.
    """

    def __init__(
        self,
        running: RunningUpstream,
        settings: UpstreamSettings,
        telemetry: Telemetry | None,
        factory: TransportFactory,
    ) -> None:
        self.running: Final = running
        self._settings: Final = settings
        self._factory: Final = factory
        before = running.rules
        self._telemetry: Final = telemetry or before.telemetry
        self.fields = tuple(
            dict.fromkeys(_shown(one.field) for one in differences(before.settings, settings))
        )
        self._sections = {field.partition(".")[0] for field in self.fields}
        self._replacements: dict[Destination, Transport] = {}
        self._rules = make_rules(
            settings, self._telemetry, policy_of(settings, running), running, factory
        )

    def make_transports(self, made: list[Transport]) -> None:
        """Make the transports to destinations whose connections change.

        Those to new destinations are made as well, and only closed again: what cannot be made now
        is a fault. Sources of destinations are loaded in the same way.

        Args:
            made: Gets each transport.

        Raises:
            ValueError: The settings do not fit one of them.
        """
        transports, pool, factory = self.running.transports, self.running.pool, self._factory
        if "destinations" in self._sections:
            self.running.discovery.check(self._settings.given_destinations)
            known = {one.url for one in pool.destinations}
            new = [one for one in self._settings.destination_settings if one.url not in known]
            made.extend(factory.make(one.address) for one in new)
        for destination in transports.replaced_by(factory):
            self._replacements[destination] = factory.make(destination.settings.address)
            made.append(self._replacements[destination])
        if self._replacements and self._sections.isdisjoint({"tls", "http_version"}):
            self.fields += ("tls",)  # the text of the settings is the same, their files are not

    def uses(self, transport: Transport) -> bool:
        """Whether a transport that was made is put in force."""
        return transport in self._replacements.values()

    def apply(self, stayed: Mapping[str, str]) -> None:
        running, settings, sections = self.running, self._settings, self._sections
        if not sections.isdisjoint(_OF_THE_SUPERVISOR):
            running.supervisor.configure(
                settings.ejection,
                settings.slow_start,
                panic=settings.when_none_available == "panic",
                keep=settings.discovery.keep,
            )
        for transport in running.transports.use(self._factory, self._replacements):
            _ = running.own(running.transports.ended(transport), f"retiring of {running.name}")
        if not sections.isdisjoint({"health", "max_requests_window"}):
            running.supervisor.set_window(settings.requests_window)
        if "health" in sections:
            apply_health(running, settings.health, headers=True)
        running.discovery.reload(settings, replaced="destinations" in sections)
        if "retries" in sections:
            retries = settings.retries
            running.budget.configure(retries.budget_share, retries.budget_minimum)
        if not sections.isdisjoint({"limits", "max_requests"}):
            running.admission.configure(settings.limits, settings.max_requests)
        running.use(self._rules)
        running.clients.configure(settings)
        running.instrument(self._telemetry)
        if self.fields or dict(stayed) != dict(running.reload_notes.overridden):
            running.reload_notes = ReloadNotes(now(), self.fields, dict(stayed))
            running.events.emit(Reloaded(running.name, None, self.fields, tuple(stayed.items())))
        else:
            running.reload_notes = running.reload_notes._replace(failed_at=None)


def _shown(field: str) -> str:
    """Name a field of a destination by ``destinations`` alone: the pool shows the rest."""
    return "destinations" if field.startswith("destinations.") else field

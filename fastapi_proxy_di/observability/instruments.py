"""Gives the metrics to OpenTelemetry.

Counts are read when OpenTelemetry collects. Durations are recorded as they end, because
OpenTelemetry has no histogram that is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Final, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation

from fastapi_proxy_di.observability.families import Family, Labels, Numbers, families
from fastapi_proxy_di.observability.histogram import BOUNDS, Durations
from fastapi_proxy_di.observability.telemetry import SCHEMA, Telemetry

__all__ = ["Instruments", "instruments_of"]

_logger = logging.getLogger("fastapi_proxy_di.metrics")

_Totals: TypeAlias = dict[str, dict[Labels, float]]
"""The totals of an ended upstream, by name of the family."""

_Sources: TypeAlias = tuple[tuple[Callable[[], Iterable[Numbers]], ...], dict[str, _Totals]]
"""What the counts are read from, and the totals of ended upstreams, by name of the upstream.
Replaced whole, because another thread may read at any time."""

ENDED_UPSTREAMS: Final = 1000
"""Ended upstreams whose totals are kept. The totals of upstreams that ended earlier are dropped,
so that memory is bounded in an app that makes upstreams all the time."""

ATTRIBUTE_SETS: Final = 2000
"""Sets of attributes of a histogram; the limit of OpenTelemetry's specification, which its SDK for
Python does not have. The SDK keeps each set until the process ends."""

_OVERFLOW: Final = {"otel.metric.overflow": True}
"""The attributes of all durations beyond that limit, as the specification has them."""


class Instruments:
    """The instruments of one meter provider, for all apps that have it.

    A collection asks for each instrument on its own. The counts are read once for all of them: when
    an instrument is asked for that has been given since the last reading, a new collection began.

    Args:
        provider: The provider; OpenTelemetry's placeholder before a global one is set, too.
    """

    def __init__(self, provider: MeterProvider) -> None:
        self._sources: _Sources = ((), {})
        self._read: dict[str, Family] = {}
        self._failed = False
        self._histograms: dict[str, _Recorded] = {}
        meter = provider.get_meter(
            "fastapi_proxy_di", version("fastapi-proxy-di"), schema_url=SCHEMA
        )
        for family in families(()):
            name, unit, text = family.name, family.unit, family.text
            if family.kind == "histogram":
                self._histograms[name] = _Recorded(
                    family.attributes,
                    meter.create_histogram(
                        name, unit, text, explicit_bucket_boundaries_advisory=BOUNDS
                    ),
                    set(),
                )
                continue
            create = (
                meter.create_observable_counter
                if family.kind == "counter"
                else meter.create_observable_up_down_counter
            )
            create(name, [partial(self._observations, name)], unit, text)
        self._any_histogram: Final = next(iter(self._histograms.values()))[1]

    def add(self, source: Callable[[], Iterable[Numbers]]) -> Callable[[], None]:
        """Read the counts of further upstreams.

        Args:
            source: Gives what their metrics are read from; called in a thread of the provider.

        Returns:
            A function that ends the reading. The totals of the last upstreams that ended stay, so
            that the last collection of a process has them, and an app that is started again goes
            on with them.
        """
        running, ended = self._sources
        self._sources = ((*running, source), ended)

        def remove() -> None:
            running, before = self._sources
            ended = before.copy()
            for numbers in source():
                ended[numbers.upstream] = _summed(ended.pop(numbers.upstream, {}), numbers)
            for name in list(ended)[:-ENDED_UPSTREAMS]:
                del ended[name]
            self._sources = (tuple(one for one in running if one is not source), ended)

        return remove

    def record(self, name: str, seconds: float, durations: Durations) -> None:
        """Record a duration, unless the provider is a placeholder that waits for the real one.

        Args:
            name: Name of the family.
            seconds: The duration.
            durations: The histogram in which it was counted, with its labels.
        """
        try:
            # What a placeholder drops need not be prepared; all instruments wait together. If the
            # attribute has another name, the placeholder gets the duration and drops it.
            if getattr(self._any_histogram, "_real_instrument", self) is None:
                return
            names, histogram, known = self._histograms[name]
            labels = durations.labels
            if labels not in known:
                if len(known) >= ATTRIBUTE_SETS:
                    histogram.record(seconds, _OVERFLOW)
                    return
                known.add(labels)
            histogram.record(seconds, _recent_attributes(names, labels))
        except Exception as error:  # a provider may raise anything
            if not self._failed:
                self._failed = True
                _logger.warning("recording a duration failed: %r", error, exc_info=error)

    def _observations(self, name: str, options: CallbackOptions) -> Iterator[Observation]:
        family = self._read.pop(name, None)
        if family is None:
            self._read = {one.name: one for one in self._families()}
            family = self._read.pop(name)
        for labels, value in family.values.items():
            yield Observation(value, _attributes(family.attributes, labels))

    def _families(self) -> list[Family]:
        running, ended = self._sources
        found = families([one for source in running for one in source()])
        for family in found:
            for totals in ended.values():
                for labels, value in totals.get(family.name, {}).items():
                    family.add(value, *labels)
        return found


class _Recorded(NamedTuple):
    """A histogram of OpenTelemetry.

    Attributes:
        names: Names of its attributes.
        histogram: The histogram.
        known: The sets of attributes that it has.
    """

    names: tuple[str, ...]
    histogram: Histogram
    known: set[Labels]


def _summed(before: _Totals, numbers: Numbers) -> _Totals:
    """Add the totals of an upstream to the totals of an earlier upstream with its name."""
    totals = {name: values.copy() for name, values in before.items()}
    for family in families([numbers]):
        if family.kind == "counter":
            of_family = totals.setdefault(family.name, {})
            for labels, value in family.values.items():
                of_family[labels] = of_family.get(labels, 0) + value
    return totals


_shared: Final[WeakKeyDictionary[MeterProvider, Instruments]] = WeakKeyDictionary()


def instruments_of(telemetry: Telemetry) -> Instruments | None:
    """Give the instruments of an app's meter provider; the same for all apps that share it.

    Returns:
        ``None`` if the provider failed, which is logged: no app fails to start because of its
        telemetry.
    """
    try:
        provider = telemetry.meter_provider()
        found = _shared.get(provider) or _made_while_waiting(provider)
        if found is None:
            found = Instruments(provider)
        _shared[provider] = found
    except Exception as error:  # a provider may raise anything
        _logger.warning("metrics go to no meter provider: %r", error, exc_info=error)
        return None
    return found


def _made_while_waiting(provider: MeterProvider) -> Instruments | None:
    """Give the instruments that an app made before ``provider`` was set as the global one.

    The provider that waits for the global one passes them on to ``provider``. A second set of
    them would not be read: OpenTelemetry keeps one instrument of each name. If the attribute of the
    waiting provider has another name, a second set is made.
    """
    for waiting, found in _shared.items():
        if getattr(waiting, "_real_meter_provider", None) is provider:
            return found
    return None


def _attributes(names: tuple[str, ...], labels: Labels) -> dict[str, str | int]:
    return {name: value for name, value in zip(names, labels, strict=True) if value is not None}


_recent_attributes: Final = lru_cache(1024)(_attributes)
"""Gives the attributes of durations, and keeps those in use. Kept for each series, they would
double the memory of the counts."""

"""Gives the metrics to OpenTelemetry.

Counts are read when OpenTelemetry collects. Durations are recorded as they end, because
OpenTelemetry has no histogram that is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version
from time import monotonic
from typing import Final
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation

from fastapi_proxy_di.observability.families import Family, Labels, Numbers, families
from fastapi_proxy_di.observability.histogram import BOUNDS
from fastapi_proxy_di.observability.metrics import Attributes
from fastapi_proxy_di.observability.telemetry import SCHEMA, Telemetry

__all__ = ["Instruments", "instruments_of"]

_logger = logging.getLogger("fastapi_proxy_di.metrics")

_SAME_SECONDS: Final = 0.1
"""A collection asks for each instrument on its own; the counts are read once for all of them."""


class Instruments:
    """The instruments of one meter provider, for all apps that have it.

    Args:
        provider: The provider; one that waits for the real provider will do.
    """

    def __init__(self, provider: MeterProvider) -> None:
        self._sources: tuple[Callable[[], Iterable[Numbers]], ...] = ()
        self._read: dict[str, Family] = {}
        self._read_at = -_SAME_SECONDS
        self._failed = False
        self._histograms: dict[str, tuple[tuple[str, ...], Histogram]] = {}
        meter = provider.get_meter(
            "fastapi_proxy_di", version("fastapi-proxy-di"), schema_url=SCHEMA
        )
        for family in families(()):
            name, unit, text = family.name, family.unit, family.text
            if family.kind == "histogram":
                self._histograms[name] = (
                    family.attributes,
                    meter.create_histogram(
                        name, unit, text, explicit_bucket_boundaries_advisory=BOUNDS
                    ),
                )
                continue
            create = (
                meter.create_observable_counter
                if family.kind == "counter"
                else meter.create_observable_up_down_counter
            )
            create(name, [partial(self._observations, name)], unit, text)

    def add(self, source: Callable[[], Iterable[Numbers]]) -> Callable[[], None]:
        """Read the counts of further upstreams.

        Args:
            source: Gives what their metrics are read from; called in a thread of the provider.

        Returns:
            A function that ends the reading.
        """
        self._sources = (*self._sources, source)

        def remove() -> None:
            self._sources = tuple(one for one in self._sources if one is not source)

        return remove

    def record(self, name: str, seconds: float, attributes: Attributes) -> None:
        """Record a duration.

        Args:
            name: Name of the family.
            seconds: The duration.
            attributes: What `attributes` gave.
        """
        try:
            self._histograms[name][1].record(seconds, attributes)
        except Exception as error:  # a provider may raise anything
            if not self._failed:
                self._failed = True
                _logger.warning("recording a duration failed: %r", error, exc_info=error)

    def attributes(self, name: str, labels: Labels) -> Attributes:
        """Give the attributes of a histogram, to be kept for further durations.

        Args:
            name: Name of the family.
            labels: The values, in the order of the family; those that are ``None`` are left out.
        """
        return _attributes(self._histograms[name][0], labels)

    def _observations(self, name: str, options: CallbackOptions) -> Iterator[Observation]:
        now = monotonic()
        if now - self._read_at >= _SAME_SECONDS:
            numbers = [one for source in self._sources for one in source()]
            self._read = {family.name: family for family in families(numbers)}
            self._read_at = now
        family = self._read[name]
        for labels, value in family.values.items():
            yield Observation(value, _attributes(family.attributes, labels))


_shared: Final[WeakKeyDictionary[MeterProvider, Instruments]] = WeakKeyDictionary()


def instruments_of(telemetry: Telemetry) -> Instruments | None:
    """Give the instruments of an app's meter provider; the same for all apps that share it.

    Returns:
        ``None`` if the provider failed, which is logged: no app fails to start because of its
        telemetry.
    """
    try:
        provider = telemetry.meter_provider()
        found = _shared.get(provider)
        if found is None:
            found = _shared[provider] = Instruments(provider)
    except Exception as error:  # a provider may raise anything
        _logger.warning("metrics go to no meter provider: %r", error, exc_info=error)
        return None
    return found


def _attributes(names: tuple[str, ...], labels: Labels) -> Attributes:
    return {name: value for name, value in zip(names, labels, strict=True) if value is not None}

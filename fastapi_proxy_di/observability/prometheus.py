"""Shows the metrics to prometheus-client, the library that the extra ``prometheus`` installs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fastapi_proxy_di.observability.families import Family, Numbers, Readings, families, families_of
from fastapi_proxy_di.observability.histogram import BOUNDS, Histogram, Label
from fastapi_proxy_di.observability.workers import warn_of_workers

__all__ = ["SumCollector", "UpstreamCollector", "exposition"]

_BOUNDS = [*map(str, BOUNDS), "+Inf"]


class UpstreamCollector(Collector):
    """Collects the metrics of upstreams at each scrape.

    Args:
        upstreams: Gives the upstreams that run now.
    """

    def __init__(self, upstreams: Callable[[], Iterable[Numbers]]) -> None:
        self._upstreams = upstreams

    def describe(self) -> list[Metric]:
        """Describe nothing, so that a registry does not collect when it gets the collector."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give all metrics with their values; the label ``process`` has the id of this process."""
        warn_of_workers()
        process = {"process": str(os.getpid())}
        for family in families(self._upstreams()):
            yield _metric(family, process)


class SumCollector(Collector):
    """Gives the metrics of upstreams that have been read in all processes, without their label.

    Args:
        upstreams: What was read.
    """

    def __init__(self, upstreams: Iterable[Readings]) -> None:
        self._upstreams = upstreams

    def collect(self) -> Iterator[Metric]:
        """Give all metrics with their values."""
        for family in families_of(self._upstreams):
            yield _metric(family, {})


def exposition(collector: Collector, accept: str) -> tuple[bytes, str]:
    """Write the metrics of one collector in the format that a scraper asks for.

    Args:
        collector: The collector.
        accept: The scraper's ``Accept`` header.

    Returns:
        The text, and its content type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _metric(family: Family, further: Mapping[str, str]) -> Metric:
    name = family.name.replace(".", "_")
    labels = [*(one.replace(".", "_") for one in family.attributes), *further]
    last = further.values()
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(f"{name}_seconds", family.text, labels=labels)
        for values, counts in family.histograms.items():
            histogram.add_metric(_texts(*values, *last), _cumulated(counts), counts.seconds)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(name, family.text, labels=labels)
    for values, value in family.values.items():
        metric.add_metric(_texts(*values, *last), value)
    return metric


def _texts(*labels: Label) -> list[str]:
    return ["" if one is None else str(one) for one in labels]


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    return [*zip(_BOUNDS, accumulate(histogram.buckets), strict=True)]

"""Write the tables of ``docs/reference/metrics.md`` from the families of metrics.

    python -m scripts.metrics_reference

The tables are committed, so that they can be read without building the site; a test fails
when they are not what this script writes.
"""

from pathlib import Path
from typing import Final, get_args

from fastapi_proxy_di.errors import Failure
from fastapi_proxy_di.forwarding.tunnel import WebSocketEnd
from fastapi_proxy_di.observability.families import Family, families
from fastapi_proxy_di.observability.histogram import BOUNDS
from fastapi_proxy_di.pools.destination import DestinationState
from scripts.reference_tables import table, with_tables

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "metrics.md"
KINDS: Final = {
    "counter": "counter",
    "gauge": "gauge; an up-down counter in OpenTelemetry",
    "histogram": "histogram",
}


def listed(values: object) -> str:
    """Write values as a list in code style."""
    assert isinstance(values, tuple | list)
    return ", ".join(f"`{value}`" for value in values)


ATTRIBUTES: Final = {
    "proxy.upstream": "name of the upstream",
    "proxy.destination": "address of the destination; `gone` for all that left the pool more than "
    "an hour ago; `dynamic` for all dynamic destinations; none for requests that failed before "
    "a destination was picked",
    "server.address": "host of the destination, path of its Unix socket, or import path of its "
    "app; `gone` for all that left the pool more than an hour ago; `dynamic` for all dynamic "
    "destinations",
    "server.port": "port of the destination, if it has one",
    "http.request.method": "method of the request; `_OTHER` for those that HTTP does not define",
    "http.response.status_code": "status of the response, if one came",
    "http.connection.state": "`active` or `idle`",
    "error.type": "the [failure](errors.md): "
    + listed([one.value for one in Failure])
    + "; `cancelled` for an attempt that was cancelled, such as the slower copy of a hedged "
    "request; `lease` for a text or another exception that the app gave to a lease; in "
    "durations also the status from 400 on, as OpenTelemetry has it for clients",
    "proxy.retry.reason": "the failure before, `status_503` and the like, or `hedge`",
    "proxy.ejection.reason": "the last failure, `status_503` and the like, `retry_after`, or "
    "`lease` for a text or another exception that the app gave to a lease",
    "proxy.tap.reason": "why a tap could not read a response: `coding`, `size` or `json`",
    "proxy.limit.name": "the setting that refused the request, e.g. `limits.max_in_flight`",
    "proxy.tunnel.end.reason": listed([one.value for one in WebSocketEnd]),
    "proxy.direction": "`up` to the destination, `down` to the client",
    "proxy.destination.state": listed(get_args(DestinationState)),
}


def prometheus_name(family: Family) -> str:
    """Give the name in Prometheus' text format."""
    ending = {"counter": "_total", "gauge": "", "histogram": "_seconds"}[family.kind]
    return family.name.replace(".", "_") + ending


def tables() -> str:
    """Give the table of metrics and the table of attributes."""
    known = families(())
    metrics = table(
        ("Metric", "In Prometheus", "Kind and unit", "Attributes", "Meaning"),
        [
            (
                f"`{family.name}`",
                f"`{prometheus_name(family)}`",
                f"{KINDS[family.kind]}, `{family.unit}`",
                listed(family.attributes),
                family.text,
            )
            for family in known
        ],
    )
    used = dict.fromkeys(name for family in known for name in family.attributes)
    labels = [(f"`{name}`", f"`{name.replace('.', '_')}`", ATTRIBUTES[name]) for name in used]
    labels.append(
        ("", "`process`", 'id of the process, in Prometheus only; not with `scope="cluster"`')
    )
    attributes = table(("Attribute", "In Prometheus", "Values"), labels)
    bounds = ", ".join(f"{bound:g}" for bound in BOUNDS)
    return (
        f"## Metrics\n\n{metrics}\n\nBuckets of all histograms in seconds: {bounds}."
        f"\n\n## Attributes\n\n{attributes}"
    )


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(), tables()))

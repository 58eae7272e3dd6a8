"""Write the Grafana dashboard ``docs/grafana/fastapi-proxy-di.json``.

    python scripts/grafana_dashboard.py

The file is committed, so that it can be imported as it is; a test fails when it is not what this
script writes, and another one runs each query on a Prometheus.

Long because all queries of the dashboard are in it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE = Path(__file__).parents[1] / "docs" / "grafana" / "fastapi-proxy-di.json"
COLUMNS: Final = 24
HEIGHT: Final = 8

OF_UPSTREAM: Final = 'proxy_upstream=~"$upstream", process=~"$process"'
# What has moved to "gone" arrives there at once, which would look like a burst of requests.
OF_DESTINATION: Final = (
    f'{OF_UPSTREAM}, proxy_destination=~"$destination", proxy_destination!="gone"'
)
WAITED: Final = f'{OF_DESTINATION}, error_type!~"cancelled|client_disconnected"'
OF_RESPONSES: Final = f'{OF_UPSTREAM}, server_address!="gone", http_response_status_code!=""'
DURATION: Final = "http_client_request_duration_seconds"
FIRST_BYTE: Final = "proxy_first_byte_duration_seconds"
SERVER: Final = "{{server_address}}:{{server_port}}"


@dataclass(frozen=True)
class Panel:
    """A graph.

    Attributes:
        title: Its heading.
        text: What it shows, and what to look for.
        unit: Unit of its values, as Grafana names it.
        queries: The legend and the query of each of its sets of lines.
        stacked: Whether the lines are stacked.
    """

    title: str
    text: str
    unit: str
    queries: dict[str, str]
    stacked: bool = False


def rate(metric: str, by: str, labels: str = OF_DESTINATION) -> str:
    """Give the query of a rate per second."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str, labels: str = OF_UPSTREAM) -> str:
    """Give the query of a percentile."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'{by}, le', labels)})"


ROWS: Final = {
    "Traffic": [
        Panel(
            "Attempts by upstream",
            "Attempts per second, retries included.",
            "reqps",
            {"{{proxy_upstream}}": rate("proxy_attempts_total", "proxy_upstream")},
        ),
        Panel(
            "Attempts by destination",
            "Attempts per second. A destination without any is ejected, draining or unhealthy.",
            "reqps",
            {
                "{{proxy_upstream}} {{proxy_destination}}": rate(
                    "proxy_attempts_total", "proxy_upstream, proxy_destination"
                )
            },
        ),
        Panel(
            "Under way",
            "Requests, tunnels and leases at destinations. A rise without a rise of attempts means "
            "that destinations became slow.",
            "short",
            {
                "{{proxy_upstream}} " + SERVER: "sum by (proxy_upstream, server_address, "
                f"server_port) (http_client_active_requests{{{OF_UPSTREAM}}})"
            },
        ),
        Panel(
            "Open connections",
            "Connections to destinations, in use and idle.",
            "short",
            {
                "{{proxy_upstream}} {{http_connection_state}}": "sum by (proxy_upstream, "
                f"http_connection_state) (http_client_open_connections{{{OF_UPSTREAM}}})"
            },
            stacked=True,
        ),
    ],
    "Failures": [
        Panel(
            "Failures by kind",
            "Failed attempts per second, and requests that failed without an attempt.",
            "reqps",
            {
                "{{proxy_upstream}} {{error_type}}": rate(
                    "proxy_failures_total", "proxy_upstream, error_type"
                )
            },
            stacked=True,
        ),
        Panel(
            "Failures by destination",
            "The same by destination; without an address: no destination was picked.",
            "reqps",
            {
                "{{proxy_upstream}} {{proxy_destination}}": rate(
                    "proxy_failures_total", "proxy_upstream, proxy_destination"
                )
            },
            stacked=True,
        ),
        Panel(
            "Share of failed attempts",
            "Failures for each attempt, without those that nobody waited for any more.",
            "percentunit",
            {
                "{{proxy_upstream}}": f"{rate('proxy_failures_total', 'proxy_upstream', WAITED)} / "
                f"{rate('proxy_attempts_total', 'proxy_upstream')}"
            },
        ),
        Panel(
            "Responses by status",
            "Responses of destinations per second.",
            "reqps",
            {
                "{{proxy_upstream}} {{http_response_status_code}}": rate(
                    f"{DURATION}_count",
                    "proxy_upstream, http_response_status_code",
                    OF_RESPONSES,
                )
            },
            stacked=True,
        ),
    ],
    "Latency": [
        Panel(
            "To the first byte, by upstream",
            "From the start of an attempt to the head of its response.",
            "s",
            {
                f"{{{{proxy_upstream}}}} p{share * 100:g}": quantile(
                    share, FIRST_BYTE, "proxy_upstream", OF_DESTINATION
                )
                for share in (0.5, 0.99)
            },
        ),
        Panel(
            "To the first byte, p99 by destination",
            "Shows which destination is slow.",
            "s",
            {
                "{{proxy_upstream}} {{proxy_destination}}": quantile(
                    0.99, FIRST_BYTE, "proxy_upstream, proxy_destination", OF_DESTINATION
                )
            },
        ),
        Panel(
            "To the last byte, by upstream",
            "From the start of an attempt to the end of its response, streams included.",
            "s",
            {
                f"{{{{proxy_upstream}}}} p{share * 100:g}": quantile(
                    share, DURATION, "proxy_upstream", OF_RESPONSES
                )
                for share in (0.5, 0.99)
            },
        ),
        Panel(
            "To the last byte, p99 by destination",
            "The same for each destination.",
            "s",
            {
                "{{proxy_upstream}} " + SERVER: quantile(
                    0.99, DURATION, "proxy_upstream, server_address, server_port", OF_RESPONSES
                )
            },
        ),
    ],
    "Destinations": [
        Panel(
            "Destinations by state",
            "As the process sees them that sees most in this state.",
            "short",
            {
                "{{proxy_upstream}} {{proxy_destination_state}}": "max by (proxy_upstream, "
                f"proxy_destination_state) (proxy_destination_count{{{OF_UPSTREAM}}})"
            },
        ),
        Panel(
            "Share of destinations that are available",
            "Below 1: the logs and the status page say why.",
            "percentunit",
            {
                "{{proxy_upstream}}": "min by (proxy_upstream) (sum by (proxy_upstream, process, "
                f"instance) (proxy_destination_count{{{OF_UPSTREAM}, "
                'proxy_destination_state="available"}) / sum by (proxy_upstream, process, '
                f"instance) (proxy_destination_count{{{OF_UPSTREAM}}}))"
            },
        ),
    ],
    "Retries and ejections": [
        Panel(
            "Retries by reason",
            "Attempts per second that repeated an earlier one, and why.",
            "reqps",
            {
                "{{proxy_upstream}} {{proxy_retry_reason}}": rate(
                    "proxy_retries_total", "proxy_upstream, proxy_retry_reason"
                )
            },
            stacked=True,
        ),
        Panel(
            "Ejections",
            "Ejections of destinations, and why.",
            "short",
            {
                "{{proxy_destination}} {{proxy_ejection_reason}}": "sum by (proxy_destination, "
                f"proxy_ejection_reason) (increase(proxy_ejections_total{{{OF_DESTINATION}}}"
                "[$__rate_interval]))"
            },
            stacked=True,
        ),
    ],
    "Limits": [
        Panel(
            "Refused requests",
            "Requests per second that a limit refused, by the setting.",
            "reqps",
            {
                "{{proxy_upstream}} {{proxy_limit_name}}": rate(
                    "proxy_refusals_total", "proxy_upstream, proxy_limit_name", OF_UPSTREAM
                )
            },
            stacked=True,
        ),
        Panel(
            "Time in the queue",
            "Of the requests that waited for a free place.",
            "s",
            {
                f"{{{{proxy_upstream}}}} p{share * 100:g}": quantile(
                    share, "proxy_queue_duration_seconds", "proxy_upstream"
                )
                for share in (0.5, 0.99)
            },
        ),
    ],
    "Taps": [
        Panel(
            "Responses that taps could not read",
            "Responses per second that passed without their tap, and why.",
            "reqps",
            {
                "{{proxy_upstream}} {{proxy_tap_reason}}": rate(
                    "proxy_tap_unread_total", "proxy_upstream, proxy_tap_reason", OF_UPSTREAM
                )
            },
            stacked=True,
        ),
    ],
    "Tunnels": [
        Panel(
            "Open tunnels",
            "WebSockets that are open now.",
            "short",
            {
                "{{proxy_upstream}}": "sum by (proxy_upstream) "
                f"(proxy_tunnel_count{{{OF_UPSTREAM}}})"
            },
        ),
        Panel(
            "Ends of tunnels",
            "Tunnels per second that ended, and why.",
            "cps",
            {
                "{{proxy_upstream}} {{proxy_tunnel_end_reason}}": rate(
                    "proxy_tunnel_ends_total", "proxy_upstream, proxy_tunnel_end_reason"
                )
            },
            stacked=True,
        ),
        Panel(
            "Messages of ended tunnels",
            "Messages per second, counted when their tunnel ends.",
            "cps",
            {
                "{{proxy_upstream}} {{proxy_direction}}": rate(
                    "proxy_tunnel_messages_total", "proxy_upstream, proxy_direction"
                )
            },
        ),
    ],
}
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def graph(panel: Panel) -> dict[str, Any]:
    """Give a panel as Grafana stores it, without id and place."""
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {
                    "fillOpacity": 10,
                    "showPoints": "never",
                    "stacking": {"group": "A", "mode": "normal" if panel.stacked else "none"},
                },
            },
            "overrides": [],
        },
        "options": {
            "legend": {
                "calcs": ["lastNotNull", "max"],
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
                "editorMode": "code",
                "range": True,
            }
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def panels() -> list[dict[str, Any]]:
    """Give all panels with their ids and places, a heading above each row."""
    found: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        found.append(
            {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": place}
        )
        y += 1
        width = COLUMNS // len(row) if len(row) < 4 else COLUMNS // 2
        for number, panel in enumerate(row):
            x = number * width % COLUMNS
            found.append(graph(panel) | {"gridPos": {"h": HEIGHT, "w": width, "x": x, "y": y}})
            if x + width == COLUMNS:
                y += HEIGHT
    return [{"id": number, **panel} for number, panel in enumerate(found, 1)]


def variable(name: str, metric: str, label: str) -> dict[str, Any]:
    """Give a variable with the values of a label; all of them are chosen at first."""
    query = f"label_values({metric}, {label})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor"},
        "refresh": 2,  # whenever the range of time changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # series without the label as well
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
    }


def dashboard() -> dict[str, Any]:
    """Give the dashboard."""
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "options": [],
        "refresh": 1,
    }
    upstream = 'proxy_attempts_total{proxy_upstream=~"$upstream"}'
    return {
        "uid": "fastapi-proxy-di",
        "title": "fastapi-proxy-di",
        "description": "Upstreams of a gateway and their destinations.",
        "tags": ["fastapi-proxy-di"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                source,
                variable("upstream", "proxy_attempts_total", "proxy_upstream"),
                variable("destination", upstream, "proxy_destination"),
                variable("process", upstream, "process"),
            ]
        },
        "annotations": {"list": []},
        "links": [],
        "panels": panels(),
    }


def text() -> str:
    """Give the file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())

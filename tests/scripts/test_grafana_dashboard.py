"""The Grafana dashboard is what the script writes, and its parts fit together."""

from __future__ import annotations

import itertools
import json
import re

from fastapi_proxy_di.observability.families import families
from scripts import grafana_dashboard
from scripts.metrics_reference import prometheus_name

DASHBOARD = json.loads(grafana_dashboard.FILE.read_text())
PANELS = DASHBOARD["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]


def test_dashboard_is_generated() -> None:
    """The committed file is importable as it is."""
    text = grafana_dashboard.FILE.read_text()

    assert text == grafana_dashboard.text(), "run python scripts/grafana_dashboard.py"


def test_panels_have_distinct_ids_and_do_not_overlap() -> None:
    """Within 24 columns."""
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        across = range(place["x"], place["x"] + place["w"])
        cells = {*itertools.product(across, range(place["y"], place["y"] + place["h"]))}
        assert across.stop <= grafana_dashboard.COLUMNS
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_every_query_has_the_chosen_data_source_and_upstreams() -> None:
    """The variables that queries use are those of the dashboard, and all of them are used."""
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    text = " ".join(QUERIES)
    used = {*re.findall(r"\$(\w+)", text)} - {"__rate_interval"}

    assert used | {"datasource"} == variables
    for panel in PANELS:
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
            assert '=~"$upstream"' in target["expr"]


def test_every_metric_is_shown() -> None:
    """The dashboard queries every metric, and no other."""
    text = " ".join(QUERIES)
    asked = {re.sub(r"_(bucket|count)$", "", name) for name in re.findall(r"(\w+)\{", text)}
    metrics = {prometheus_name(one) for one in families(())}

    # A gauge may end in _count itself.
    assert {one for one in metrics if one in text} == metrics
    assert asked <= {re.sub(r"_(bucket|count)$", "", name) for name in metrics}


def test_no_rate_has_what_moved_to_gone() -> None:
    """The counts of an address that left long ago arrive there at once, as a burst."""
    of_destinations = {
        re.sub(r"_(bucket|count)$", "", prometheus_name(one))
        for one in families(())
        if {"proxy.destination", "server.address"} & {*one.attributes}
    }
    found = re.findall(r"(?:rate|increase)\((\w+)\{([^}]*)\}", " ".join(QUERIES))
    rates = [
        labels for name, labels in found if re.sub(r"_(bucket|count)$", "", name) in of_destinations
    ]

    assert len(rates) > 10
    assert all('!="gone"' in labels for labels in rates)

"""The reference page of metrics is what the script writes."""

from __future__ import annotations

from fastapi_proxy_di.observability.families import families
from scripts import metrics_reference
from scripts.reference_tables import with_tables


def test_metrics_page_is_generated() -> None:
    """The tables are those of the families; each attribute has a row."""
    page = metrics_reference.PAGE.read_text()

    assert with_tables(page, metrics_reference.tables()) == page, (
        "run python -m scripts.metrics_reference"
    )
    for family in families(()):
        assert f"| `{family.name}` |" in page
        assert f"`{metrics_reference.prometheus_name(family)}`" in page


def test_every_described_attribute_is_used() -> None:
    """None is left over from a metric that is gone."""
    used = {name for family in families(()) for name in family.attributes}

    assert used == metrics_reference.ATTRIBUTES.keys()

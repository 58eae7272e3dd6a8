"""One list of what the settings give and what sources found."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.discovery.merging import configured, from_template, merge
from tests.discovery.samples import at, some

API, FILE = "dns+http://api.internal:8080", "file:///etc/billing.toml"


def test_merge_keeps_the_order_of_the_settings() -> None:
    """What a source found stands where the source stands."""
    merged = merge((at("http://a"), at(API), at("http://b")), {API: some(1, 2)})

    assert [one.url for one in merged.destinations] == [
        "http://a",
        "http://10.0.0.1",
        "http://10.0.0.2",
        "http://b",
    ]
    assert merged.found_by == {"http://10.0.0.1": API, "http://10.0.0.2": API}
    assert merged.doubles == ()


def test_merge_takes_the_first_of_two_with_one_address() -> None:
    """The pairs of sources are told once."""
    first = at("http://10.0.0.1:80", weight=2)
    merged = merge((first, at(API), at(FILE)), {API: some(1, 2, 3), FILE: some(2, 3)})

    assert merged.destinations == (first, *some(2, 3))
    assert merged.doubles == ((API, "http://10.0.0.1"), (FILE, API))
    assert merged.found_by == {"http://10.0.0.2": API, "http://10.0.0.3": API}


def test_merge_source_without_a_list_adds_nothing() -> None:
    """It has not answered yet."""
    assert merge((at(API),), {}).destinations == ()


def test_template_gives_the_fields_that_are_not_found() -> None:
    """Weights are multiplied, tiers added, metadata joined."""
    template = at(
        API, weight=2, tier=1, max_requests=7, max_in_flight=9, metadata={"a": "1", "b": "1"}
    )
    found = at("http://a", weight=3, tier=2, max_in_flight=5, metadata={"b": "2"})

    assert from_template(template, found) == at(
        "http://a",
        weight=6,
        tier=3,
        max_requests=7,
        max_in_flight=5,
        metadata={"a": "1", "b": "2"},
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [(API, "b.example"), ("srv+http://_api._tcp.internal", "b.example"), (FILE, "a.example")],
)
def test_template_gives_the_host_of_what_dns_found(source: str, expected: str) -> None:
    """A file and a plug-in may set it for each destination."""
    made = from_template(at(source, host="b.example"), at("http://a", host="a.example"))

    assert made.host == expected


def test_template_without_fields_changes_nothing() -> None:
    """The same object, since a thousand of them may be found each second."""
    found = at("http://a", weight=3)

    assert from_template(at(API), found) is found


def test_weights_of_template_and_found_stay_within_the_limit() -> None:
    """SRV weights may be as large as that of a template."""
    made = from_template(at(API, weight=65535), at("http://a", weight=65535))

    assert made.weight == 65535


def test_configured_changes_some_fields() -> None:
    """The others stay, and a wrong value is refused."""
    before = at("http://a", weight=2, tier=1)

    assert configured(before, {"weight": 5}) == at("http://a", weight=5, tier=1)
    with pytest.raises(ValueError, match="weight"):
        configured(before, {"weight": 0})

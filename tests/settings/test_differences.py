"""The difference of two settings: named fields, and no secret value."""

from typing import Any

import pytest
from pydantic import SecretStr

from fastapi_proxy_di.settings import (
    AffinitySettings,
    DestinationSettings,
    ProxySettings,
    TelemetrySettings,
    TimeoutSettings,
    UpstreamSettings,
    differences,
)

A, B, C = "http://a", "http://b", "http://c"


class Gateway(UpstreamSettings, name="gateway"):
    """Settings with a field of the user's own."""

    token: str = "first"


class Turns:
    """A policy of one's own."""

    name = "turns"
    pick = max


def shown(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Give the differences as text."""
    given: dict[str, Any] = {"destinations": [A]}
    return [str(one) for one in differences(Gateway(**given | before), Gateway(**given | after))]


def test_equal_settings_have_no_difference() -> None:
    """Nothing is named where nothing differs."""
    assert shown({"policy": Turns()}, {"policy": Turns()}) == []


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        ({}, {"timeouts": {"connect": 2}}, ["timeouts.connect: 5.0 -> 2.0"]),
        ({"slow_start": 3}, {}, ["slow_start: 3.0 -> 0.0"]),
        ({}, {"max_requests": 5}, ["max_requests: none -> 5"]),
        ({}, {"policy": "random"}, ["policy: power_of_two_choices -> random"]),
        ({}, {"health": {"expected": "200"}}, None),
        ({}, {"destinations": [A, C]}, [f"destinations: + {C}"]),
        ({"destinations": [A, B]}, {"destinations": [B]}, [f"destinations: - {A}"]),
        (
            {"destinations": [A, B]},
            {"destinations": [B, A]},
            [f"destinations: {A}, {B} -> {B}, {A}"],
        ),
        (
            {},
            {"destinations": [DestinationSettings(url=A, weight=3)]},
            [f"destinations.{A}.weight: 1.0 -> 3.0"],
        ),
    ],
)
def test_difference_names_field_and_values(
    before: dict[str, Any], after: dict[str, Any], texts: list[str] | None
) -> None:
    """A value that is no secret is shown, before and after."""
    found = shown(before, after)

    assert found == texts if texts is not None else found[0].startswith("health.expected: ")


@pytest.mark.parametrize(
    ("before", "after", "fields"),
    [
        ({"request_headers": {"x-a": "secret1"}}, {}, ["request_headers.x-a"]),
        (
            {"request_headers": {"x-a": "secret1", "x-b": "same"}},
            {"request_headers": {"x-a": "secret2", "x-b": "same", "x-c": "secret3"}},
            ["request_headers.x-a", "request_headers.x-c"],
        ),
        ({}, {"response_headers": {"x-a": "secret1"}}, ["response_headers.x-a"]),
        (
            {"health": {"path": "/", "headers": {"authorization": "secret1"}}},
            {"health": {"path": "/"}},
            ["health.headers.authorization"],
        ),
        (
            {},
            {"affinity": AffinitySettings(cookie="c", key=SecretStr("secret1" * 5))},
            ["affinity"],
        ),
        (
            {"affinity": AffinitySettings(cookie="c", key=SecretStr("secret1" * 5))},
            {"affinity": AffinitySettings(cookie="c", key=SecretStr("secret2" * 5))},
            ["affinity.key"],
        ),
        (
            {},
            {"transforms": [{"kind": "request_header", "name": "x-a", "set": "secret1"}]},
            ["transforms"],
        ),
        ({"token": "secret1"}, {"token": "secret2"}, ["token"]),
        (
            {"destinations": [DestinationSettings(url=A, metadata={"k": "secret1"})]},
            {},
            [f"destinations.{A}.metadata.k"],
        ),
    ],
)
def test_difference_shows_no_secret(
    before: dict[str, Any], after: dict[str, Any], fields: list[str]
) -> None:
    """Of a field that may hold a secret only the name is given."""
    assert shown(before, after) == [f"{field}: changed" for field in fields]


def test_difference_of_the_settings_of_an_app() -> None:
    """The settings of an app are compared in the same way."""
    found = differences(
        ProxySettings(), ProxySettings(telemetry=TelemetrySettings(tracing=False), request_id=True)
    )

    assert [str(one) for one in found] == [
        "telemetry.tracing: True -> False",
        "request_id: False -> True",
    ]


def test_difference_of_classes_with_other_fields() -> None:
    """A field that only one of the classes has is named."""

    class Plain(UpstreamSettings, name="gateway"):
        """The same upstream without the field."""

    found = differences(
        Gateway(destinations=[A], timeouts=TimeoutSettings()), Plain(destinations=[A])
    )

    assert [str(one) for one in found] == ["token: changed"]

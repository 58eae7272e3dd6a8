"""Durations, lists, status codes and header fields, as people write them."""

import math
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from fastapi_proxy_di.settings import (
    AffinitySettings,
    DestinationSettings,
    Duration,
    DurationOrZero,
    EjectionSettings,
    ForwardedSettings,
    HealthSettings,
    RetrySettings,
    StatusCodes,
    TimeoutSettings,
    TlsSettings,
    WebSocketSettings,
)
from fastapi_proxy_di.settings.durations import parse_duration

KEY = SecretStr("k" * 16)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3, 3.0),
        (0.5, 0.5),
        ("15", 15.0),
        (" 1.5 s ", 1.5),
        (".5s", 0.5),
        ("500ms", 0.5),
        ("2m", 120.0),
        ("1H", 3600.0),
        ("2d", 172800.0),
        (timedelta(minutes=1), 60.0),
        (0, 0.0),
    ],
)
def test_parse_duration_reads_numbers_and_units(value: object, seconds: float) -> None:
    """Seconds are the unit where none is written."""
    assert seconds == parse_duration(value)


@pytest.mark.parametrize(
    "value",
    ["", "abc", "5x", "-1", "1m30", "1e3", "٣s", None, True, [], -1, math.inf, math.nan, "400d"],
)
def test_parse_duration_refuses_what_is_none(value: object) -> None:
    """Not finite, negative, or longer than a year is a typing error."""
    with pytest.raises(ValueError, match="500ms"):
        parse_duration(value)


@given(st.floats(0.001, 1e5), st.sampled_from([("ms", 0.001), ("s", 1.0), ("m", 60.0)]))
def test_parse_duration_scales_by_its_unit(number: float, unit: tuple[str, float]) -> None:
    """Any decimal number, times its unit."""
    name, factor = unit
    text = f"{number:.4f}"

    assert parse_duration(text + name) == pytest.approx(float(text) * factor)


def test_durations_differ_in_whether_zero_is_one() -> None:
    """An interval of 0 makes no sense, a queue timeout of 0 does."""

    class Both(BaseModel):
        positive: Duration = 1.0
        any_: DurationOrZero = 1.0

    assert Both.model_validate({"any_": "0"}).any_ == 0
    with pytest.raises(ValidationError, match="more than 0"):
        Both.model_validate({"positive": "0ms"})


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("200-399", set(range(200, 400))),
        ("200,204, 300-302", {200, 204, 300, 301, 302}),
        ("", set()),
        (503, {503}),
        ([502, "503-504"], {502, 503, 504}),
        ((), set()),
    ],
)
def test_status_codes_reads_codes_and_ranges(codes: Any, expected: set[int]) -> None:
    """As text from a variable, as numbers from JSON and code."""
    assert expected == StatusCodes(codes)


@pytest.mark.parametrize("codes", ["abc", "99", "600", "300-200", "2xx", [20], None, 1.5, "200-"])
def test_status_codes_refuses_what_is_none(codes: Any) -> None:
    """The message says what would be right."""
    with pytest.raises(ValueError, match="200-399"):
        StatusCodes(codes)


@given(st.frozensets(st.integers(100, 599)))
def test_status_codes_reads_what_it_writes(codes: frozenset[int]) -> None:
    """The short text is the same set again."""
    written = StatusCodes(codes)

    assert codes == StatusCodes(str(written))
    assert repr(written) == f"StatusCodes('{written}')"


def test_status_codes_are_dumped_as_text_in_json_only() -> None:
    """Python keeps the set, JSON gets what a person would write."""
    settings = HealthSettings(expected=StatusCodes("200,300-302"))

    assert StatusCodes([200, 300, 301, 302]) == settings.model_dump()["expected"]
    assert settings.model_dump(mode="json")["expected"] == "200,300-302"


def test_methods_are_upper_case_names() -> None:
    """Methods come from comma-separated text as well as from a list, and dump in order."""
    settings = RetrySettings.model_validate({"methods": "put, get"})

    assert {"GET", "PUT"} == settings.methods
    assert settings.model_dump(mode="json")["methods"] == ["GET", "PUT"]
    with pytest.raises(ValidationError, match="is not a method"):
        RetrySettings.model_validate({"methods": ["G T"]})


def test_networks_come_from_text_lists_and_networks() -> None:
    """An address is a network of one."""
    network = ip_network("10.0.0.0/8")
    expected = (network, ip_network("fd00::1/128"))

    assert (
        expected
        == ForwardedSettings.model_validate(
            {"trusted_proxies": "10.0.0.0/8, fd00::1"}
        ).trusted_proxies
    )
    assert expected[:1] == ForwardedSettings(trusted_proxies=(network,)).trusted_proxies


@pytest.mark.parametrize("text", ["*", "10.0.0.1/8", "localhost"])
def test_networks_refuse_what_is_none(text: str) -> None:
    """Trusting everybody must be said in networks; host bits are a typing error."""
    with pytest.raises(ValidationError, match=r"0\.0\.0\.0/0 and ::/0 trust every peer"):
        ForwardedSettings.model_validate({"trusted_proxies": text})


@pytest.mark.parametrize("text", ["none", "off", "null", " None "])
def test_optional_fields_can_be_switched_off_by_text(text: str) -> None:
    """A variable can undo what a class has set."""
    assert WebSocketSettings.model_validate({"ping_interval": text}).ping_interval is None
    assert TimeoutSettings.model_validate({"total": text}).total is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HealthSettings(path="health"), "starts with '/'"),
        (lambda: HealthSettings(path="/a b"), "starts with '/'"),
        (lambda: HealthSettings(path="/a#b"), "starts with '/'"),
        (lambda: HealthSettings(path="/ü"), "starts with '/'"),
        (lambda: HealthSettings(body_match="("), "is not a regular expression"),
        (lambda: HealthSettings(path="/", method="HEAD", body_match="ok"), "needs the method GET"),
        (lambda: HealthSettings.model_validate({"method": 5}), "GET"),
        (lambda: HealthSettings(fall=0), "greater than or equal to 1"),
        (lambda: EjectionSettings(failure_rate=0), "greater than 0"),
        (lambda: EjectionSettings(base_time=60, max_time=30), "max_time"),
        (AffinitySettings, "needs one of"),
        (lambda: AffinitySettings(cookie="a", header="b", key=KEY), "needs one of"),
        (lambda: AffinitySettings(cookie="a"), "is required with 'cookie'"),
        (lambda: AffinitySettings(cookie="a", key=SecretStr("k" * 15)), "shorter than 16"),
        (lambda: AffinitySettings(cookie="a", key=SecretStr(" " * 16)), "shorter than 16"),
        (lambda: AffinitySettings(cookie="a b", key=KEY), "is not a cookie name"),
        (lambda: AffinitySettings(header="a b"), "is not a header name"),
        (lambda: TlsSettings.model_validate({"client_key": __file__}), "without client_cert"),
        (lambda: TlsSettings.model_validate({"ca_file": __file__, "verify": False}), "no effect"),
        (
            lambda: TlsSettings.model_validate({"ca_file": "/no/such/file"}),
            "does not point to a file",
        ),
    ],
)
def test_nested_models_refuse_what_cannot_work(
    build: Callable[[], BaseModel], message: str
) -> None:
    """What contradicts itself is a fault at start, not a surprise later."""
    with pytest.raises(ValidationError, match=message):
        build()


def test_nested_models_take_what_can_work() -> None:
    """The same fields, given rightly."""
    health = HealthSettings.model_validate({"path": "/h?x=1", "method": "head"})

    assert health.enabled
    assert health.method == "HEAD"
    assert not HealthSettings().enabled
    assert HealthSettings(path="/", body_match="ok|fine").body_match == "ok|fine"
    assert AffinitySettings(header="X-User").header == "x-user"
    assert AffinitySettings(cookie="lb", key=KEY).on_missing == "redistribute"
    assert TlsSettings.model_validate({"client_cert": __file__, "client_key": __file__}).verify


def test_destination_parses_its_addresses_once() -> None:
    """The address is kept, and probes go to their own where there is one."""
    plain = DestinationSettings(url="HTTP://A:80/base/")
    probed = DestinationSettings(url="http://a", health_url="http://a:9000/", health_path="/up")

    assert plain.url == "http://a/base"
    assert plain.address is plain.address
    assert plain.probe_address is plain.address
    assert probed.probe_address.port == 9000
    assert plain == DestinationSettings(url="http://a/base")


@pytest.mark.parametrize("weight", [0, -1, math.inf, math.nan])
def test_destination_has_a_weight_above_zero(weight: float) -> None:
    """A destination that gets nothing is a drained one, not one of weight 0."""
    with pytest.raises(ValidationError, match="weight"):
        DestinationSettings(url="http://a", weight=weight)


def test_models_are_frozen_and_know_their_fields() -> None:
    """Nothing changes after start, and an unknown key is an error in code, too."""
    settings = HealthSettings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.__setattr__("path", "/x")
    with pytest.raises(ValidationError, match="paht"):
        HealthSettings.model_validate({"paht": "/x"})

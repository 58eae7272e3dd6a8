"""What settings accept, type checkers accept, and they know what it is read as.

mypy and pyright check this file; pytest runs it. pyright also says when a call that it must
refuse passes: its ``type: ignore`` is then unnecessary.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, assert_type

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from fastapi_proxy_di import (
    AffinitySettings,
    ClusterSettings,
    Destinations,
    DestinationSettings,
    DiscoverySettings,
    EjectionSettings,
    ForwardedSettings,
    HealthSettings,
    LimitSettings,
    RetrySettings,
    SseEvent,
    StreamSettings,
    TimeoutSettings,
    TlsSettings,
    UpstreamSettings,
    WebSocketSettings,
)
from fastapi_proxy_di.settings.statuses import StatusCodes
from fastapi_proxy_di.transforms import (
    QueryParameter,
    RequestHeader,
    RequestHeadersAllowed,
    ResponseHeader,
    ResponseHeadersAllowed,
)

SECOND: Final = timedelta(seconds=1)


class Billing(UpstreamSettings, name="billing"):
    """An upstream whose class declares nothing but addresses."""

    destinations: Destinations = ["http://10.0.0.1"]


class First:
    """A policy of one's own."""

    name = "first-of-all"

    def pick(self, available: Any, request: object) -> Any:
        """Pick the first."""
        return available[0]


def counts(event: SseEvent) -> bool | None:
    """Count every event."""
    return True


class Plain(UpstreamSettings, name="plain"):
    """An upstream that declares its fields as they are read."""

    destinations: Destinations = ["http://10.0.0.1"]
    policy: str = "round_robin"
    slow_start: float = 30
    max_requests_window: float | None = 1
    request_headers: dict[str, SecretStr] = {"x-tenant": SecretStr("a")}
    remove_request_headers: tuple[str, ...] = ("x-debug",)
    response_headers: dict[str, SecretStr] = {}
    http_version: Literal["1.1", "2"] = "2"


class AsText(UpstreamSettings, name="as-text"):
    """An upstream that declares its fields in other forms that settings accept."""

    destinations: Destinations = "http://10.0.0.1,http://10.0.0.2"
    policy: object = First()
    slow_start: str = "30s"
    max_requests_window: timedelta = SECOND
    request_headers: dict[str, str] = {"x-tenant": "a"}
    remove_request_headers: list[str] = ["x-debug"]
    remove_response_headers: str = "x-powered-by, x-debug"
    http_version: str = "2"


ACCEPTED: Final[list[BaseModel]] = [
    AffinitySettings(header="x-tenant", on_missing="fail"),
    AffinitySettings(header="mcp-session-id", issue=True, key=SecretStr("k" * 32)),
    AffinitySettings(
        cookie="billing", key="k" * 32, max_age="30d", same_site="Lax", domain="example.com"
    ),
    DestinationSettings(
        url="http://10.0.0.1",
        host="billing.internal",
        weight=2,
        max_requests=10,
        max_in_flight=None,
        health_path="/health",
        health_url=None,
        tier=1,
        metadata=MappingProxyType({"region": "eu"}),
    ),
    DiscoverySettings(
        refresh="500ms",
        nameservers="10.0.0.2, [fd00::1]:53",
        keep=0,
        on_empty="drop",
        required=False,
        family="ipv4",
    ),
    DiscoverySettings(refresh=None, nameservers=["10.0.0.2:5353"], keep=SECOND),
    EjectionSettings(
        enabled=True,
        window="1m",
        minimum_requests=5,
        failure_rate=0.5,
        consecutive=3,
        base_time=SECOND,
        max_time=300,
        max_share=1,
        statuses=[502, "503-504"],
        respect_retry_after=True,
        key="body:model",
        key_statuses=[429, "401-403"],
        shared="off",
    ),
    ForwardedSettings(
        mode="append",
        trusted_proxies=[
            "10.0.0.0/8",
            ip_network("fd00::/8"),
            IPv4Network("10.1.0.0/16"),
            IPv6Network("fd01::/16"),
            IPv4Address("192.0.2.1"),
        ],
        rfc7239=True,
        via=False,
    ),
    ForwardedSettings(trusted_proxies="10.0.0.0/8, fd00::/8"),
    HealthSettings(
        path="/health",
        method="get",
        headers={"authorization": "Bearer geheim", "x-tenant": SecretStr("a")},
        host="tenant.example",
        interval="5s",
        jitter=0,
        timeout=SECOND,
        fall=3,
        rise=2,
        expected=[200, "300-302"],
        unhealthy_interval=0.5,
        body_match="ok",
    ),
    LimitSettings(
        max_in_flight=100,
        queue=10,
        queue_timeout="500ms",
        max_body_bytes=None,
        max_response_header_bytes=4096,
        replay_total_bytes=0,
        idle_connections=0,
        idle_seconds=4,
        dynamic_destinations=10,
        expect_continue=SECOND,
    ),
    RetrySettings(
        attempts=2,
        methods=["GET", "POST"],
        statuses="502,503",
        refused_statuses={429},
        replay_bytes=0,
        budget_share=0.1,
        budget_minimum=0,
        backoff="25ms",
        duration="5s",
        hedge_after=SECOND,
    ),
    RetrySettings(methods="GET,POST"),
    StreamSettings(replay_bytes=0),
    StreamSettings(first_event="10s", first_event_when="openai", retry=True, replay_bytes=65536),
    StreamSettings(first_event=SECOND, first_event_when=counts, idle="1m", heartbeat=15),
    ClusterSettings(store="redis://127.0.0.1", name="shop", key="k" * 16, timeout="250ms"),
    ClusterSettings(snapshot_interval=SECOND, on_store_lost="refuse"),
    TimeoutSettings(
        connect="5s", resolve=SECOND, activity=100, first_byte="none", ping=None, total="2m"
    ),
    TlsSettings(ca_file=__file__, client_cert=Path(__file__), client_key=None),
    TlsSettings(verify=False, server_name="billing.example"),
    WebSocketSettings(
        max_message_bytes=None,
        ping_interval="20s",
        ping_timeout=None,
        open_timeout=SECOND,
        compression=True,
    ),
    QueryParameter(name="tenant", set="a"),
    QueryParameter(kind="query_parameter", name="tenant", append=SecretStr("a")),
    RequestHeader(name="x-tenant", set="a"),
    RequestHeader(kind="request_header", name="x-tenant", append=SecretStr("a")),
    RequestHeadersAllowed(kind="request_headers_allowed", names=["accept"]),
    RequestHeadersAllowed(names="accept, accept-language"),
    ResponseHeader(name="x-tenant", set="a"),
    ResponseHeader(kind="response_header", name="x-b", append=SecretStr("a"), when="always"),
    ResponseHeadersAllowed(kind="response_headers_allowed", names=("content-type",)),
    ResponseHeadersAllowed(names={"content-type"}),
    Billing(
        destinations=["http://10.0.0.1", DestinationSettings(url="http://10.0.0.2")],
        policy="hash",
        hash_key="path",
        prefix_bytes=4096,
        streams=StreamSettings(),
        health=HealthSettings(),
        ejection=EjectionSettings(),
        discovery=DiscoverySettings(),
        slow_start="30s",
        when_none_available="fail",
        retries=RetrySettings(),
        timeouts=TimeoutSettings(),
        limits=LimitSettings(),
        max_requests=100,
        max_requests_window=SECOND,
        forwarded=ForwardedSettings(),
        preserve_host=True,
        dot_segments="pass",
        header_case="title",
        request_headers={"x-tenant": "a", "authorization": SecretStr("geheim")},
        remove_request_headers=["x-debug"],
        response_headers={"x-tenant": "a"},
        remove_response_headers="x-powered-by, x-debug",
        response_server_headers="pass",
        location="pass",
        transforms=[RequestHeader(name="x-gateway", set="a")],
        tls=TlsSettings(),
        http_version=2,
        websocket=WebSocketSettings(),
        affinity=None,
        strict_environment=True,
        explain=False,
    ),
    Billing(policy=First(), http_version=1.1),
]


@pytest.mark.parametrize(
    "model", sorted({type(settings) for settings in ACCEPTED}, key=str), ids=lambda m: m.__name__
)
def test_settings_are_all_in_the_table(model: type[BaseModel]) -> None:
    """Each field of each model is set above, in forms that type checkers have seen."""
    written = (one.model_fields_set for one in ACCEPTED if type(one) is model)

    assert set().union(*written) == model.model_fields.keys()


def test_types_of_durations() -> None:
    """A duration is read as seconds, or as seconds or none."""
    assert_type(AffinitySettings(header="x-tenant").max_age, float | None)
    assert_type(EjectionSettings().window, float)
    assert_type(HealthSettings().timeout, float)
    assert_type(HealthSettings().unhealthy_interval, float | None)
    assert_type(LimitSettings().idle_seconds, float)
    assert_type(RetrySettings().backoff, float)
    assert_type(RetrySettings().hedge_after, float | None)
    assert_type(WebSocketSettings().ping_timeout, float | None)
    timeouts = TimeoutSettings(connect="5s", total="2m")
    assert_type(timeouts.connect, float)
    assert_type(timeouts.total, float | None)
    assert (timeouts.connect, timeouts.total) == (5.0, 120.0)


def test_types_of_lists() -> None:
    """Lists are read as sets, tuples and dictionaries, whatever they were written as."""
    health = HealthSettings(headers={"X-Tenant": "a"}, expected=204)
    forwarded = ForwardedSettings(trusted_proxies="10.0.0.0/8")
    allowed = RequestHeadersAllowed(names="Accept")
    destination = DestinationSettings(url="http://10.0.0.1", metadata={"region": "eu"})

    assert_type(health.expected, StatusCodes)
    assert_type(health.headers, dict[str, SecretStr])
    assert_type(forwarded.trusted_proxies, tuple[IPv4Network | IPv6Network, ...])
    assert_type(RetrySettings(methods=["GET"]).methods, frozenset[str])
    assert_type(allowed.names, tuple[str, ...])
    assert_type(ResponseHeadersAllowed(names="Accept").names, tuple[str, ...])
    assert_type(destination.metadata, dict[str, str])
    assert health.expected == {204}
    assert health.headers == {"x-tenant": SecretStr("a")}
    assert forwarded.trusted_proxies == (ip_network("10.0.0.0/8"),)
    assert allowed.names == ("accept",)


def test_types_of_other_values() -> None:
    """Secrets, files and choices are read as one type each."""
    header = RequestHeader(name="x-tenant", set="a")

    assert_type(header.set, SecretStr | None)
    assert_type(ResponseHeader(name="x-tenant", append="a").append, SecretStr | None)
    assert_type(QueryParameter(name="tenant", append="a").append, SecretStr | None)
    assert_type(TlsSettings(ca_file=__file__).ca_file, Path | None)
    assert_type(HealthSettings(method="head").method, Literal["GET", "HEAD"])
    affinity = AffinitySettings(cookie="billing", key="k" * 32, same_site="Strict")
    assert_type(affinity.same_site, Literal["lax", "strict", "none"])
    assert header.set == SecretStr("a")
    assert affinity.same_site == "strict"


def test_types_of_fields_in_a_declared_class() -> None:
    """A class may write a field in any accepted form; it is read as in any other class."""
    plain = Plain()
    undeclared: float = Billing().slow_start

    assert_type(plain.policy, str)
    assert_type(plain.slow_start, float)
    assert_type(plain.request_headers, dict[str, SecretStr])
    fields = {"slow_start", "max_requests_window", "request_headers", "remove_request_headers"}
    assert AsText().model_dump(include=fields) == plain.model_dump(include=fields)
    assert AsText().model_dump(include={"http_version"}) == {"http_version": "2"}
    assert undeclared == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TimeoutSettings(connect=[5]),  # type: ignore[arg-type, unused-ignore]
        lambda: TimeoutSettings(connect=None),  # type: ignore[arg-type, unused-ignore]
        lambda: HealthSettings(expected=None),  # type: ignore[arg-type, unused-ignore]
        lambda: RetrySettings(hedge_after={}),  # type: ignore[arg-type, unused-ignore]
        lambda: RetrySettings(methods=5),  # type: ignore[arg-type, unused-ignore]
        lambda: HealthSettings(method="POST"),  # type: ignore[arg-type, unused-ignore]
        lambda: HealthSettings(headers={"x-a": 5}),  # type: ignore[dict-item, unused-ignore]
        lambda: AffinitySettings(same_site="lux"),  # type: ignore[arg-type, unused-ignore]
        lambda: ForwardedSettings(trusted_proxies=8),  # type: ignore[arg-type, unused-ignore]
        lambda: TlsSettings(ca_file=5),  # type: ignore[arg-type, unused-ignore]
        lambda: RequestHeader(name="x-tenant", set=5),  # type: ignore[arg-type, unused-ignore]
        lambda: QueryParameter(set="a"),  # type: ignore[call-arg, unused-ignore]
        lambda: RequestHeadersAllowed(names=5),  # type: ignore[arg-type, unused-ignore]
        lambda: DestinationSettings(url="http://a", metadata=5),  # type: ignore[arg-type, unused-ignore]
        lambda: Billing(when_none_available="wait"),  # type: ignore[arg-type, unused-ignore]
    ],
)
def test_types_refuse_what_validation_refuses(wrong: Any) -> None:
    """A value of a wrong type is a fault for validation and for type checkers."""
    with pytest.raises(ValidationError):
        wrong()

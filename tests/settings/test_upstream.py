"""Settings of one upstream: names, declared classes, and what each field takes."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings import (
    POLICIES,
    AffinitySettings,
    Destinations,
    DestinationSettings,
    HealthSettings,
    RetrySettings,
    TimeoutSettings,
    UpstreamSettings,
    settings_class,
)
from tests.settings.billing import Billing


def test_settings_class_is_made_once() -> None:
    """Two mentions of a name have the same class."""
    assert settings_class("billing-eu") is settings_class("billing-eu")
    assert settings_class("billing-eu").__name__ == "BillingEuSettings"


@pytest.mark.parametrize("name", ["", "Billing", "1a", "a.b", "a b", "_a"])
def test_name_is_checked(name: str) -> None:
    """Names are used in variables, logs and URLs."""
    with pytest.raises(SettingsError, match="is not a name"):
        settings_class(name)


def test_class_without_name_raises_with_the_line_to_write() -> None:
    """The base class reads no variables."""
    with pytest.raises(SettingsError) as caught:
        UpstreamSettings(destinations=["http://a"])

    assert str(caught.value) == (
        "UpstreamSettings has no name, which is given in the class statement: write"
        ' class Billing(UpstreamSettings, name="billing"), or read the settings of the environment'
        ' with load_upstream("billing")'
    )


def test_field_of_ones_own_is_read_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pydantic-settings users write them."""
    monkeypatch.setenv("UPSTREAM_ORDERS_REGION", "eu")

    class Orders(UpstreamSettings, name="orders"):
        destinations: Destinations = ["http://orders"]
        region: str = "us"

    assert Orders().region == "eu"


def test_class_inherits_the_defaults_of_an_unnamed_base() -> None:
    """Shared defaults can be declared once."""

    class House(UpstreamSettings):
        timeouts: TimeoutSettings = TimeoutSettings(connect=1)

    class Orders(House, name="orders"):
        destinations: Destinations = ["http://orders"]

    class More(Orders):
        preserve_host: bool = True

    assert Orders().timeouts.connect == 1
    assert More().name == "orders"
    assert More.model_config.get("env_prefix") == "UPSTREAM_ORDERS_"
    assert UpstreamSettings.name == ""


def test_class_defaults_are_validated_as_the_field() -> None:
    """An annotation beside a default is for type checkers; validation stays that of the field."""
    settings = Billing()

    assert settings.destinations == (DestinationSettings(url="http://class:1"),)
    assert settings.request_headers["x-tenant"].get_secret_value() == "acme"
    assert settings.team == "payments"
    with pytest.raises(ValidationError, match="is not a policy"):
        Billing(policy="fastest")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Billing(max_requests=0)


@pytest.mark.parametrize("policy", [*POLICIES, "package.module:Policy"])
def test_policy_is_a_name_or_a_reference(policy: str) -> None:
    """Only the form is checked; composing the upstream imports the reference."""
    assert policy == Billing(policy=policy).policy


@dataclass
class Fixed:
    """A policy of one's own; a dataclass, which pydantic-settings would take apart."""

    index: int = 0

    def pick(self, available: tuple[object, ...], request: object) -> object:
        """Always pick the same destination."""
        return available[self.index]


def test_policy_may_be_an_object() -> None:
    """As argument and as default it stays the same object."""

    class Own(UpstreamSettings, name="billing"):
        destinations: Destinations = ["http://a"]
        policy: object = Fixed(1)

    given = Fixed(2)

    assert given.pick(("a", "b", "c"), None) == "c"
    assert Own(policy=given).policy is given
    assert Own().policy == Fixed(1)
    assert Own().model_dump(mode="json")["policy"].endswith(":Fixed")


@pytest.mark.parametrize("policy", ["", "module:", "fastest", Fixed, 3, None])
def test_policy_refuses_anything_else(policy: object) -> None:
    """A class is not a policy object."""
    with pytest.raises(ValidationError, match="is not a policy"):
        Billing(policy=policy)


@pytest.mark.parametrize(
    ("key", "normalised"),
    [
        ("client", "client"),
        ("path", "path"),
        ("header:X-User", "header:x-user"),
        ("cookie:sid", "cookie:sid"),
        ("query:q", "query:q"),
    ],
)
def test_hash_key_names_its_source(key: str, normalised: str) -> None:
    """Requests with one key share a destination."""
    assert normalised == Billing(hash_key=key).hash_key


@pytest.mark.parametrize("key", ["", "user", "header:", "header:a b", "client:x", "body:x", 5])
def test_hash_key_refuses_anything_else(key: Any) -> None:
    """The message lists the forms."""
    with pytest.raises(ValidationError, match="header"):
        Billing(hash_key=key)


@pytest.mark.parametrize("version", ["2", 2])
def test_http_version_may_be_a_number(version: Any) -> None:
    """TOML and YAML write 2 and 1.1 without quotes."""
    assert Billing(http_version=version).http_version == "2"
    assert Billing(http_version=1.1).http_version == "1.1"


def test_latency_turns_probes_on() -> None:
    """Probes measure the latencies that the policy compares."""
    by_latency = Billing(policy="latency", health=HealthSettings(path=None))

    assert by_latency.health == HealthSettings(path="/", fall=7)
    assert Billing(policy="latency").health.path == "/class"
    assert not Billing(health=HealthSettings(path=None)).health.enabled


def test_probe_address_without_probes_is_a_fault() -> None:
    """It would be ignored silently."""
    destinations = [DestinationSettings(url="http://a", health_path="/up")]

    assert Billing(destinations=destinations).health.enabled
    with pytest.raises(ValidationError, match=r"set health\.path"):
        Billing(destinations=destinations, health=HealthSettings(path=None))


def test_hedging_and_affinity_exclude_each_other() -> None:
    """Hedging sends to another destination, which affinity forbids."""
    with pytest.raises(ValidationError, match="hedge_after"):
        Billing(
            destinations=["http://a"],
            retries=RetrySettings(hedge_after=1),
            affinity=AffinitySettings(header="x-tenant"),
        )


def test_requests_window_is_the_health_interval_by_default() -> None:
    """As for a limit per probe interval."""
    assert Billing().requests_window == 15
    assert Billing(max_requests_window=3).requests_window == 3


@pytest.mark.parametrize(
    ("destinations", "message"),
    [
        ([], "is empty"),
        (["http://a", "http://A:80/"], "is given twice"),
        (["a:80"], "has no scheme"),
        (5, "tuple"),
    ],
)
def test_destinations_are_checked(destinations: Any, message: str) -> None:
    """None, the same twice, and malformed addresses."""
    with pytest.raises(ValidationError, match=message):
        Billing(destinations=destinations)


def test_destinations_take_one_object_or_many() -> None:
    """One object without a list is a list of one."""
    one = DestinationSettings(url="http://a")
    single: Any = one

    assert Billing(destinations=single).destinations == (one,)
    assert Billing(destinations=[one, "http://b"]).destination_settings[0] == one


@pytest.mark.parametrize(
    ("field", "name"),
    [
        *(
            ("request", name)
            for name in (
                "Host",
                "Content-Length",
                "TE",
                "X-Forwarded-For",
                "Forwarded",
                "Via",
                "Proxy-Authorization",
                "a b",
            )
        ),
        *(("response", name) for name in ("Connection", "Transfer-Encoding", "Upgrade", "ä")),
    ],
)
def test_headers_set_by_the_proxy_are_refused(field: str, name: str) -> None:
    """Setting and removing; either would break framing or falsify the client's address."""
    settings: dict[str, Any] = {f"{field}_headers": {name: "x"}}
    removal: dict[str, Any] = {f"remove_{field}_headers": [name]}

    with pytest.raises(ValidationError, match=r"may not be set|not a header name"):
        Billing(**settings)
    with pytest.raises(ValidationError, match=r"may not be set|not a header name"):
        Billing(**removal)


@pytest.mark.parametrize("value", ["geheim\r\nX: y", "geheim\0", "geheim\u20ac", "gehe\nim"])
def test_header_values_with_line_breaks_are_refused(value: str) -> None:
    """The message does not show the value."""
    headers: Any = {"X-Key": value}

    with pytest.raises(ValidationError, match="the value of 'x-key'") as caught:
        Billing(response_headers=headers)

    assert "geheim" not in str(caught.value)


def test_secrets_are_never_shown() -> None:
    """Not by repr, in a dump or in JSON."""
    settings = Billing(
        request_headers={"authorization": SecretStr("geheim")},
        affinity=AffinitySettings(cookie="lb", key=SecretStr("geheim" * 3)),
    )

    assert "geheim" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()


def test_settings_are_frozen() -> None:
    """Attributes cannot be set."""
    settings = Billing()

    with pytest.raises(ValidationError, match="frozen"):
        settings.__setattr__("preserve_host", True)


def test_json_schema_documents_every_field() -> None:
    """Editors use it; each field has a description."""
    schema = UpstreamSettings.model_json_schema()
    models = [schema, *schema["$defs"].values()]

    undocumented = [
        name
        for model in models
        for name, field in model["properties"].items()
        if not field.get("description")
    ]

    assert "required" not in schema  # destinations are, unless addresses are allowed
    assert not undocumented
    assert schema["$defs"]["TimeoutSettings"]["properties"]["connect"]["anyOf"][0] == {
        "type": "number",
        "exclusiveMinimum": 0,
    }
    assert json.dumps(schema)


def test_named_settings_have_another_name() -> None:
    """And nothing else; the class keeps its own."""
    settings = Billing(destinations=["http://a"], request_headers={"x-key": "secret"})
    named = settings.named("acme-7")

    assert (named.name, settings.name, Billing.name) == ("acme-7", "billing", "billing")
    assert named.model_dump() == settings.model_dump()
    assert named.model_copy().name == "acme-7"
    assert "acme" not in repr(named)


def test_named_settings_have_a_valid_name() -> None:
    """As a class has."""
    with pytest.raises(SettingsError, match="'Acme' is not a name of an upstream"):
        Billing(destinations=["http://a"]).named("Acme")

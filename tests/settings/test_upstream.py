"""Settings of one upstream: names, sources, precedence, fields.

Long, because each field, source and precedence has a case, all with the same few helpers.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

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
    load_upstream,
    settings_class,
)


class Billing(UpstreamSettings, name="billing"):
    """A declared upstream, with annotations that people write."""

    destinations: Destinations = ["http://class:1"]
    policy: str = "round_robin"
    health: HealthSettings = HealthSettings(path="/class", fall=7)
    request_headers: dict[str, SecretStr] = {
        "X-Tenant": SecretStr("acme"),
        "X-Key": SecretStr("class"),
    }
    max_requests: int = 5
    team: str = "payments"


def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Set variables of the upstream ``billing``."""
    for name, value in values.items():
        monkeypatch.setenv(f"UPSTREAM_BILLING_{name}", value)


def urls(settings: UpstreamSettings) -> list[str]:
    """Give the addresses in order."""
    return [destination.url for destination in settings.destination_settings]


def test_bare_name_reads_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No class is needed."""
    environment(
        monkeypatch, DESTINATIONS="http://a:8080, http://b:8080/base/", HEALTH__PATH="/health"
    )

    settings = load_upstream("billing")

    assert settings.name == "billing"
    assert urls(settings) == ["http://a:8080", "http://b:8080/base"]
    assert settings.health.enabled


def test_dash_of_a_name_is_underscore_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable cannot hold a dash."""
    monkeypatch.setenv("UPSTREAM_BILLING_EU_1_DESTINATIONS", "http://eu")

    assert urls(load_upstream("billing-eu_1")) == ["http://eu"]


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
    with pytest.raises(
        SettingsError, match=r'UpstreamSettings\(UpstreamSettings, name="billing"\)'
    ):
        UpstreamSettings(destinations=["http://a"])


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


def test_environment_wins_over_class_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nested variable keeps the other nested defaults of the class."""
    environment(
        monkeypatch,
        HEALTH__INTERVAL="500ms",
        POLICY="first",
        REQUEST_HEADERS__X_KEY="env",
        MAX_REQUESTS="none",
    )

    settings = Billing()

    assert settings.health == HealthSettings(path="/class", fall=7, interval=0.5)
    assert settings.policy == "first"
    assert settings.max_requests is None
    assert settings.request_headers == {"x-tenant": SecretStr("acme"), "x-key": SecretStr("env")}


def test_code_wins_over_environment_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model given in code only the given fields count."""
    environment(
        monkeypatch,
        HEALTH__INTERVAL="3",
        HEALTH__PATH="/env",
        POLICY="first",
        DESTINATIONS="http://env",
    )

    settings = Billing(
        health=HealthSettings(path="/code"), policy="random", destinations=["http://code"]
    )

    assert settings.health == HealthSettings(path="/code", fall=7, interval=3)
    assert settings.policy == "random"
    assert urls(settings) == ["http://code"]


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files often set empty variables."""
    environment(monkeypatch, DESTINATIONS="", HEALTH__PATH="", POLICY="")

    assert Billing().health.path == "/class"
    assert urls(Billing()) == ["http://class:1"]


def test_json_variables_and_nested_ones_combine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nested variable wins over the JSON."""
    environment(
        monkeypatch,
        HEALTH='{"path": "/json", "fall": 3}',
        HEALTH__FALL="4",
        DESTINATIONS='["http://a", {"url": "http://b", "weight": 2.5, "metadata": {"zone": "x"}}]',
        RETRIES__STATUSES="502,503",
        RETRIES__METHODS='["GET"]',
        AFFINITY__COOKIE="lb",
        AFFINITY__KEY="geheim" * 3,
        REMOVE_REQUEST_HEADERS="X-Debug, cookie",
    )

    settings = Billing()

    assert (settings.health.path, settings.health.fall) == ("/json", 4)
    assert settings.destination_settings[1].weight == 2.5
    assert settings.retries.statuses == {502, 503}
    assert settings.retries.methods == {"GET"}
    assert settings.affinity is not None
    assert settings.affinity.cookie == "lb"
    assert settings.remove_request_headers == ("x-debug", "cookie")


def test_affinity_of_a_class_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """``none`` replaces the model of the class."""

    class Sticky(UpstreamSettings, name="billing"):
        destinations: Destinations = ["http://a"]
        affinity: AffinitySettings | None = AffinitySettings(header="x-user")

    environment(monkeypatch, AFFINITY__ON_MISSING="fail")
    assert Sticky().affinity == AffinitySettings(header="x-user", on_missing="fail")

    monkeypatch.delenv("UPSTREAM_BILLING_AFFINITY__ON_MISSING")
    environment(monkeypatch, AFFINITY="none")
    assert Sticky().affinity is None


def test_sources_have_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code, environment, .env, secrets, TOML, YAML, JSON, class: each wins over the next."""
    order = ["code", "environment", "dotenv", "secrets", "toml", "yaml", "json", "class"]
    names = ["X-A", "X-B", "X-C", "X-D", "X-E", "X-F", "X-G", "X-H"]

    def headers(source: str) -> dict[str, str]:
        return dict.fromkeys(names[order.index(source) :], source)

    def lines(source: str) -> list[tuple[str, str]]:
        return [
            (f"UPSTREAM_BILLING_REQUEST_HEADERS__{name.replace('-', '_')}", value)
            for name, value in headers(source).items()
        ]

    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "unrelated").write_text("x")
    (secrets / "upstream_billing_directory").mkdir()
    (secrets / "UPSTREAM_BILLING_POLICY").write_text("\n")
    for name, value in lines("secrets"):
        (secrets / name).write_text(value + "\n")
    (tmp_path / ".env").write_text(
        "".join(f"{name}={value}\n" for name, value in lines("dotenv"))
        + "DATABASE_URL=postgres://x\nUPSTREAM_BILLING_SERVICE_HOST=10.0.0.1\nUPSTREAM_OTHER_POLICY=x\n"
    )
    (tmp_path / "s.json").write_text(json.dumps({"request_headers": headers("json")}))
    (tmp_path / "s.yaml").write_text(json.dumps({"request_headers": headers("yaml")}))
    (tmp_path / "s.toml").write_text(
        "[request_headers]\n" + "".join(f'{k} = "{v}"\n' for k, v in headers("toml").items())
    )
    for name, value in lines("environment"):
        monkeypatch.setenv(name, value)

    class Layered(UpstreamSettings, name="billing"):
        model_config = SettingsConfigDict(
            env_file=tmp_path / ".env",
            secrets_dir=secrets,
            toml_file=tmp_path / "s.toml",
            yaml_file=tmp_path / "s.yaml",
            json_file=tmp_path / "s.json",
        )
        destinations: Destinations = ["http://a"]
        request_headers: dict[str, SecretStr] = {
            name: SecretStr("class")
            for name in ["X-A", "X-B", "X-C", "X-D", "X-E", "X-F", "X-G", "X-H"]
        }

    settings = Layered(request_headers={k: SecretStr(v) for k, v in headers("code").items()})
    assert {"code"} == {value.get_secret_value() for value in settings.request_headers.values()}

    without_code = {k: v.get_secret_value() for k, v in Layered().request_headers.items()}
    assert without_code == {"x-a": "class"} | {name.lower(): "environment" for name in names[1:]}

    for name, _ in lines("environment"):
        monkeypatch.delenv(name)
    without_environment = {k: v.get_secret_value() for k, v in Layered().request_headers.items()}
    assert list(without_environment.values()).count("dotenv") == 6

    (tmp_path / ".env").unlink()
    assert [v.get_secret_value() for v in Layered().request_headers.values()].count("secrets") == 5

    for path in secrets.glob("*HEADERS*"):
        path.unlink()
    assert [v.get_secret_value() for v in Layered().request_headers.values()].count("toml") == 4

    (tmp_path / "s.toml").unlink()
    assert [v.get_secret_value() for v in Layered().request_headers.values()].count("yaml") == 3

    (tmp_path / "s.yaml").unlink()
    assert [v.get_secret_value() for v in Layered().request_headers.values()].count("json") == 2


def test_files_can_be_named_at_construction(tmp_path: Path) -> None:
    """The constructor arguments of pydantic-settings work."""
    (tmp_path / "env").write_text("UPSTREAM_BILLING_POLICY=random\n")
    (tmp_path / "UPSTREAM_BILLING_HEALTH__PATH").write_text("/secret")
    options: dict[str, Any] = {"_env_file": tmp_path / "env", "_secrets_dir": [tmp_path]}

    settings = Billing(**options)

    assert settings.policy == "random"
    assert settings.health.path == "/secret"


def test_missing_secrets_directory_gives_a_warning(tmp_path: Path) -> None:
    """As in pydantic-settings."""
    options: dict[str, Any] = {"_secrets_dir": str(tmp_path / "none")}

    with pytest.warns(UserWarning, match="does not exist"):
        Billing(**options)


@pytest.mark.parametrize(
    ("key", "text"), [("toml_file", "= 1"), ("json_file", "{"), ("yaml_file", "a: [")]
)
def test_unreadable_file_is_a_fault(tmp_path: Path, key: str, text: str) -> None:
    """The fault names the file and the position."""
    (tmp_path / "settings").write_text(text)

    class Broken(UpstreamSettings, name="billing"):
        model_config = {key: tmp_path / "settings"}  # type: ignore[misc]

    with pytest.raises(SettingsError, match=f"{key} cannot be read"):
        Broken(destinations=["http://a"])


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("toml_file", 'polcy = "first"'),
        ("toml_file", '[health]\npaht = "/"'),
        ("yaml_file", "polcy: first"),
        ("yaml_file", "health:\n  paht: /"),
        ("json_file", '{"polcy": "first"}'),
        ("json_file", '{"health": {"paht": "/"}}'),
    ],
)
def test_unknown_key_in_a_file_is_an_error(tmp_path: Path, key: str, text: str) -> None:
    """A file holds settings of one upstream only."""
    (tmp_path / "settings").write_text(text)

    class FromFile(UpstreamSettings, name="billing"):
        model_config = {key: tmp_path / "settings"}  # type: ignore[misc]
        destinations: Destinations = ["http://a"]

    with pytest.raises(ValidationError, match="Extra inputs"):
        FromFile()


@pytest.mark.parametrize("policy", [*POLICIES, "package.module:Policy"])
def test_policy_is_a_name_or_a_reference(policy: str) -> None:
    """Only the form is checked; composing the upstream imports the reference."""
    assert policy == Billing(policy=policy).policy


@dataclass
class Fixed:
    """A policy of one's own; a dataclass, which pydantic-settings would take apart."""

    index: int = 0

    def pick(self, available: tuple[object, ...], request: object) -> object:
        """Give always the same."""
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

    assert schema["required"] == ["destinations"]
    assert not undocumented
    assert schema["$defs"]["TimeoutSettings"]["properties"]["connect"]["anyOf"][0] == {
        "type": "number",
        "exclusiveMinimum": 0,
    }
    assert json.dumps(schema)

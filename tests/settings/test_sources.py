"""Where settings come from and which source wins: code, variables, files, the class."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings import (
    AffinitySettings,
    Destinations,
    HealthSettings,
    UpstreamSettings,
    load_upstream,
)
from tests.settings.billing import Billing, environment, urls


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


def test_variable_of_a_header_has_dashes_for_underscores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable cannot hold a dash."""
    environment(monkeypatch, REQUEST_HEADERS__X_KEY="a", HEALTH__HEADERS__X_PROBE_KEY="b")

    settings = Billing(health={"headers": {"X-Code": "c"}})

    assert settings.request_headers["x-key"] == SecretStr("a")
    assert settings.health.headers == {"x-probe-key": SecretStr("b"), "x-code": SecretStr("c")}


def test_header_in_json_stays_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON can hold both dashes and underscores."""
    environment(
        monkeypatch, REQUEST_HEADERS='{"X_Key": "a"}', HEALTH__HEADERS='{"X_Key": "b", "X-Z": "c"}'
    )

    settings = Billing()

    assert settings.request_headers["x_key"] == SecretStr("a")
    assert settings.health.headers == {"x_key": SecretStr("b"), "x-z": SecretStr("c")}


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

    with pytest.raises(SettingsError, match=f"{key} .+ cannot be read"):
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

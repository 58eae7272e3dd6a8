"""Texts of faults of the settings, which show no secret.

Long because each kind of fault is a row with its whole text.
"""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError, field_validator
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings import (
    Destinations,
    DestinationSettings,
    HealthSettings,
    UpstreamSettings,
    describe_faults,
    describe_late_fault,
    load_all,
    load_upstream,
)

_HEALTH_FIELDS = ", ".join(HealthSettings.model_fields)


class Billing(UpstreamSettings, name="billing"):
    """A declared upstream."""

    destinations: Destinations = ["http://a"]


def faults_of(monkeypatch: pytest.MonkeyPatch, **values: str) -> list[str]:
    """Load ``billing`` with these variables and give the lines of the error."""
    for name, value in values.items():
        monkeypatch.setenv(f"UPSTREAM_BILLING_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_all({"billing": Billing})
    return str(caught.value).splitlines()[1:]


def test_load_all_gives_settings_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, classes and instances, in the order of mention."""
    monkeypatch.setenv("UPSTREAM_ORDERS_DESTINATIONS", "http://orders")
    instance = Billing(policy="random")

    loaded = load_all({"orders": "orders", "billing": instance})

    assert list(loaded) == ["orders", "billing"]
    assert loaded["billing"] is instance
    assert load_all({"billing": Billing})["billing"] == Billing()


def test_load_all_reports_every_fault_of_every_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error has all faults, each with its variable and how to write it."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "ftp://x")
    monkeypatch.setenv("UPSTREAM_BILLING_POLICY", "fastest")

    with pytest.raises(SettingsError) as caught:
        load_all({"billing": "billing", "orders": "orders"})

    title, first, second, third = str(caught.value).splitlines()
    assert title == "Settings are not valid:"
    assert first.startswith(
        "- upstream 'billing': destinations.0.url (UPSTREAM_BILLING_DESTINATIONS): "
    )
    assert "use http, https, http+unix or asgi" in first
    assert second.startswith("- upstream 'billing': policy (UPSTREAM_BILLING_POLICY): 'fastest'")
    assert "power_of_two_choices" in second
    assert third == (
        "- upstream 'orders': destinations (UPSTREAM_ORDERS_DESTINATIONS): is required; set it,"
        " e.g. http://10.0.0.1:8080"
    )


def test_load_upstream_reports_its_faults() -> None:
    """The text is that of ``load_all``."""
    with pytest.raises(SettingsError, match="UPSTREAM_BILLING_DESTINATIONS"):
        load_upstream("billing")


def test_load_all_refuses_two_names_with_one_prefix() -> None:
    """Both would read the same variables."""

    class Eu(UpstreamSettings, name="billing-eu"):
        destinations: Destinations = ["http://a"]

    class AlsoEu(UpstreamSettings, name="billing_eu"):
        destinations: Destinations = ["http://a"]

    with pytest.raises(
        SettingsError, match=r"same variables \(UPSTREAM_BILLING_EU_\*\) as upstream 'billing-eu'"
    ):
        load_all({"billing-eu": Eu, "billing_eu": AlsoEu()})


def test_load_all_accepts_one_class_with_several_names() -> None:
    """The variables of the class are meant to hold for all of them."""
    settings = Billing()

    loaded = load_all({"billing": Billing, "acme": settings.named("acme")})

    assert [one.name for one in loaded.values()] == ["billing", "acme"]


def test_load_all_refuses_settings_of_another_name() -> None:
    """The mentioned name and the settings' name must be equal."""
    with pytest.raises(
        SettingsError, match="upstream 'orders': is given settings that are named 'billing'"
    ):
        load_all({"orders": Billing})


def test_load_all_reports_bad_names_and_files_with_all_others(tmp_path: Path) -> None:
    """Faults that are not validation errors are lines, too."""
    (tmp_path / "settings").write_text("{")

    class FromFile(UpstreamSettings, name="from-file"):
        model_config = SettingsConfigDict(json_file=tmp_path / "settings")

    with pytest.raises(SettingsError) as caught:
        load_all({"Bad": "Bad", "from-file": FromFile, "orders": "orders"})

    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:]] == [
        "- upstream 'Bad'",
        "- upstream 'from-file'",
        "- upstream 'orders'",
    ]


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "LIMITS",
            "3",
            (
                "limits (UPSTREAM_BILLING_LIMITS): has parts: set them one by one, e.g."
                " UPSTREAM_BILLING_LIMITS__MAX_IN_FLIGHT, or all as a JSON object"
            ),
        ),
        (
            "REQUEST_HEADERS",
            "x",
            (
                "request_headers (UPSTREAM_BILLING_REQUEST_HEADERS): is not a JSON object such as"
                ' {"X-Name": "value"}; write one, or a variable for each header:'
                " UPSTREAM_BILLING_REQUEST_HEADERS__X_NAME"
            ),
        ),
        (
            "HEALTH",
            '{"path": ',
            (
                "health (UPSTREAM_BILLING_HEALTH): starts like JSON and cannot be"
                " decoded; check its brackets and quotes (JSON has double quotes)"
            ),
        ),
        (
            "HEALTH__FALL",
            "two",
            "health.fall (UPSTREAM_BILLING_HEALTH__FALL): is not a whole number, got 'two'",
        ),
        (
            "HEALTH__PAHT",
            "/",
            (
                "health.paht (UPSTREAM_BILLING_HEALTH__PAHT): is not a field; did you mean 'path'?"
                f" There are {_HEALTH_FIELDS}"
            ),
        ),
        (
            "HEALTH__ZZZ",
            "/",
            (
                "health.zzz (UPSTREAM_BILLING_HEALTH__ZZZ): is not a field; there are"
                f" {_HEALTH_FIELDS}"
            ),
        ),
        (
            "TIMEOUTS__CONNECT",
            "5 parsecs",
            (
                "timeouts.connect (UPSTREAM_BILLING_TIMEOUTS__CONNECT):"
                " is not a duration; give seconds, or one number with one unit such as '500ms',"
                " '1.5s', '2m' or '1h', got '5 parsecs'"
            ),
        ),
        (
            "TIMEOUTS__ACTIVITY",
            "15m30",
            (
                "timeouts.activity (UPSTREAM_BILLING_TIMEOUTS__ACTIVITY):"
                " is not a duration; give seconds, or one number with one unit such as '500ms',"
                " '1.5s', '2m' or '1h', got '15m30'"
            ),
        ),
        (
            "TIMEOUTS__TOTAL",
            "-1",
            (
                "timeouts.total (UPSTREAM_BILLING_TIMEOUTS__TOTAL): must be between 0 and 366"
                " days; give seconds, or one number with one unit such as '500ms', '1.5s', '2m' or"
                " '1h', got '-1'"
            ),
        ),
        (
            "LIMITS__QUEUE",
            "-1",
            ("limits.queue (UPSTREAM_BILLING_LIMITS__QUEUE): must be at least 0, got '-1'"),
        ),
        (
            "POLICY",
            "round-robin",
            (
                "policy (UPSTREAM_BILLING_POLICY): 'round-robin' is not a policy; did you mean"
                " 'round_robin'? Use power_of_two_choices, round_robin, least_requests, random,"
                " first, latency, peak_ewma, hash, prefix, or package.module:Policy"
            ),
        ),
        (
            "RETRIES__METHODS",
            "GET,POTS",
            (
                "retries.methods.1 (UPSTREAM_BILLING_RETRIES__METHODS): 'POTS' is not a known"
                " method; did you mean POST?"
            ),
        ),
        (
            "HEALTH__PATH",
            '"/health"',
            (
                "health.path (UPSTREAM_BILLING_HEALTH__PATH): '\"/health\"' is not a path; it"
                " starts with '/' and is percent-encoded; the value is in quotes: remove them, as"
                " `docker run --env-file` keeps them"
            ),
        ),
        (
            "DESTINATIONS",
            "http://a;http://b",
            (
                "destinations.0.url (UPSTREAM_BILLING_DESTINATIONS): 'http://a;http://b' holds"
                " several addresses; separate addresses by commas"
            ),
        ),
        (
            "DESTINATIONS",
            "'http://a'",
            (
                "destinations.0.url (UPSTREAM_BILLING_DESTINATIONS): \"'http://a'\" has no scheme;"
                " write http://host:port or https://host:port; the value is in quotes: remove"
                " them, as `docker run --env-file` keeps them"
            ),
        ),
        (
            "WHEN_NONE_AVAILABLE",
            "cry",
            (
                "when_none_available (UPSTREAM_BILLING_WHEN_NONE_AVAILABLE):"
                " must be 'panic' or 'fail', got 'cry'"
            ),
        ),
        (
            "DESTINATIONS",
            '[{"url": "http://a", "wieght": 2}]',
            (
                "destinations.0.wieght"
                " (UPSTREAM_BILLING_DESTINATIONS): is not a field; did you mean 'weight'? There"
                f" are {', '.join(DestinationSettings.model_fields)}"
            ),
        ),
        (
            "DESTINATIONS",
            "[{}]",
            "destinations.0.url (UPSTREAM_BILLING_DESTINATIONS): is required; set it",
        ),
        (
            "DESTINATIONS",
            ",",
            (
                "destinations (UPSTREAM_BILLING_DESTINATIONS): is empty; give at least"
                " one address, e.g. http://10.0.0.1:8080"
            ),
        ),
        (
            "DESTINATIONS",
            "http://a http://b",
            (
                "destinations.0.url (UPSTREAM_BILLING_DESTINATIONS): 'http://a http://b' holds"
                " several addresses; separate addresses by commas"
            ),
        ),
        (
            "AFFINITY__COOKIE",
            "seat",
            (
                "affinity.key (UPSTREAM_BILLING_AFFINITY__KEY): is required with 'cookie', which"
                " it signs; set it, e.g. to what `openssl rand -hex 32` prints"
            ),
        ),
        (
            "LIMITS__MAX_BODY_BYTES",
            "10MB",
            (
                "limits.max_body_bytes (UPSTREAM_BILLING_LIMITS__MAX_BODY_BYTES): is a number of"
                " bytes, e.g. 10000000, got '10MB'"
            ),
        ),
    ],
)
def test_fault_names_field_variable_and_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    """Each kind of fault is a sentence about one variable."""
    assert faults_of(monkeypatch, **{name: value}) == [f"- upstream 'billing': {line}"]


def test_faults_name_variables_that_set_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing value may be in a mistyped variable; variables of Kubernetes are left out."""
    monkeypatch.setenv("UPSTREAM_ORDERS_DESTINATION", "http://geheim")
    monkeypatch.setenv("UPSTREAM_ORDERS_URL", "http://geheim")
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP_ADDR"):
        monkeypatch.setenv(f"UPSTREAM_ORDERS_{name}", "10.0.0.1")

    with pytest.raises(SettingsError) as caught:
        load_all({"orders": "orders", "billing": Billing})

    assert str(caught.value).splitlines()[2:] == [
        (
            "- UPSTREAM_ORDERS_DESTINATION sets nothing of upstream 'orders'; did you mean"
            " UPSTREAM_ORDERS_DESTINATIONS?"
        ),
        (
            "- UPSTREAM_ORDERS_URL sets nothing of upstream 'orders'; did you mean"
            " UPSTREAM_ORDERS_DESTINATIONS?"
        ),
    ]


def test_fault_names_where_the_value_is_written(tmp_path: Path) -> None:
    """A file and its key, ``.env`` or a secrets directory: no variable that nobody has set."""
    (tmp_path / "billing.toml").write_text('policy = "fastest"\n[health]\nfall = "two"\n')
    (tmp_path / "orders.yaml").write_text("limits:\n  queue: many\n  quue: 3\n")
    (tmp_path / ".env").write_text("UPSTREAM_ENV_POLICY=fastest\n")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "upstream_secret_policy").write_text("fastest")

    class Toml(UpstreamSettings, name="toml"):
        model_config = SettingsConfigDict(toml_file=tmp_path / "billing.toml")
        destinations: Destinations = ["http://a"]

    class Yaml(UpstreamSettings, name="yaml"):
        model_config = SettingsConfigDict(yaml_file=tmp_path / "orders.yaml")
        destinations: Destinations = ["http://a"]

    class Env(UpstreamSettings, name="env"):
        model_config = SettingsConfigDict(env_file=tmp_path / ".env")
        destinations: Destinations = ["http://a"]

    class Secret(UpstreamSettings, name="secret"):
        model_config = SettingsConfigDict(secrets_dir=secrets)
        destinations: Destinations = ["http://a"]

    class Declared(UpstreamSettings, name="declared"):
        destinations: Destinations = ["http://a"]
        policy: str = "fastest"

    with pytest.raises(SettingsError) as caught:
        load_all({one.name: one for one in (Toml, Yaml, Env, Secret, Declared)})

    assert [line.split(": ")[1] for line in str(caught.value).splitlines()[1:]] == [
        f"policy (in {tmp_path}/billing.toml)",
        f"health.fall (in {tmp_path}/billing.toml)",
        f"limits.queue (in {tmp_path}/orders.yaml)",
        f"limits.quue (in {tmp_path}/orders.yaml)",
        "policy (UPSTREAM_ENV_POLICY in .env)",
        "policy (UPSTREAM_SECRET_POLICY in secrets directory)",
        "policy (class Declared)",
    ]


def test_strict_environment_makes_unread_variables_faults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One underscore where there are two is named."""
    monkeypatch.setenv("UPSTREAM_BILLING_STRICT_ENVIRONMENT", "true")

    assert faults_of(monkeypatch, HEALTH_PATH="/health", POLCY="first") == [
        (
            "- UPSTREAM_BILLING_HEALTH_PATH sets nothing of upstream 'billing'; write nested"
            " settings with two underscores: UPSTREAM_BILLING_HEALTH__PATH"
        ),
        (
            "- UPSTREAM_BILLING_POLCY sets nothing of upstream 'billing'; did you mean"
            " UPSTREAM_BILLING_POLICY?"
        ),
    ]


def test_fault_of_too_deep_a_name_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault names the variable that is set, and the hint says that nothing reads it."""
    assert faults_of(monkeypatch, HEALTH__PATH__DEEP="/") == [
        (
            "- upstream 'billing': health.path (UPSTREAM_BILLING_HEALTH__PATH__DEEP): must be a"
            " text, not a list or an object"
        ),
        "- UPSTREAM_BILLING_HEALTH__PATH__DEEP sets nothing of upstream 'billing'",
    ]


def test_missing_destinations_name_the_upstream_that_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A similar name gives a hint, unless the app mentions it."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://geheim")
    monkeypatch.setenv("UPSTREAM_SEARCH_DESTINATIONS", "http://geheim")

    with pytest.raises(SettingsError) as alone:
        load_upstream("biling")
    with pytest.raises(SettingsError) as beside:
        load_all({"billing": "billing", "biling": "biling"})

    assert str(alone.value).splitlines()[2:] == [
        (
            "- UPSTREAM_BILLING_DESTINATIONS is set; did you mean upstream 'billing' instead of"
            " 'biling'?"
        )
    ]
    assert len(str(beside.value).splitlines()) == 2


def test_undecodable_values_are_reported_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing bracket does not hide other faults."""
    faults = faults_of(monkeypatch, RETRIES='{"attempts"', POLICY="fastest", HEALTH__FALL="0")

    assert [line.split()[3] for line in faults] == ["policy", "health.fall", "retries"]


def test_late_fault_names_field_and_variable() -> None:
    """A fault found when a setting is used has the same form."""
    error = ValueError("tls.ca_file: /x has no usable roots: no such file")

    text = "tls.ca_file (UPSTREAM_BILLING_TLS__CA_FILE): /x has no usable roots: no such file"
    assert describe_late_fault(error, Billing()) == f"upstream 'billing': {text}"
    assert describe_late_fault(error, Billing().named("acme")) == f"upstream 'acme': {text}"


def test_fault_of_the_whole_names_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that contradict each other have no single variable."""
    faults = faults_of(monkeypatch, DESTINATIONS='[{"url": "http://a", "health_path": "/up"}]')

    assert faults == [
        (
            "- upstream 'billing': a destination has health_path or health_url, but probes are off;"
            " set health.path"
        )
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REQUEST_HEADERS", '{"x-key": "geheim"'),
        ("REQUEST_HEADERS", "geheim"),
        ("REQUEST_HEADERS", '["geheim"]'),
        ("REQUEST_HEADERS", '{"x-key": ["geheim"]}'),
        ("REQUEST_HEADERS__X_KEY", "geheim\nx"),
        ("RESPONSE_HEADERS__HOST__X", "geheim"),
        ("AFFINITY", "geheim"),
        ("AFFINITY", '{"cookie": "a", "key": "geheim", "header": "b"}'),
        ("AFFINITY", '{"key": "geheim"'),
        ("AFFINITY__KEY__X", "geheim"),
        ("AFFINITY__ON_MISSING", "geheim"),
        ("HEALTH__HEADERS", "geheim"),
        ("HEALTH__HEADERS", '{"x-key": 5, "geheim'),
        ("HEALTH__HEADERS", '{"x-key": ["geheim"]}'),
        ("HEALTH__HEADERS__X_KEY", "geheim\nx"),
        ("DESTINATIONS", "http://user:geheim@a"),
        ("DESTINATIONS", "http://a?token=geheim"),
        ("DESTINATIONS", '[["http://user:geheim@a"]]'),
        ("DESTINATIONS", '[{"url": "http://a", "weight": "http://user:geheim@a"}]'),
        ("TOKEN", "geheim"),
    ],
)
def test_fault_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """For every fault of a secret, and for secrets in a wrong place."""

    class WithToken(UpstreamSettings, name="billing"):
        destinations: Destinations = ["http://a"]
        token: int = 0

    monkeypatch.setenv(f"UPSTREAM_BILLING_{name}", value)
    with pytest.raises(ValidationError) as raised:
        WithToken()
    with pytest.raises(SettingsError) as caught:
        load_all({"billing": WithToken})

    assert "geheim" not in str(caught.value)
    assert "geheim" not in str(raised.value)
    assert "UPSTREAM_BILLING_" in str(caught.value)


def test_secret_of_a_subclass_stays_out_of_the_message() -> None:
    """The message is the validator's, without the value."""

    class Own(UpstreamSettings, name="own"):
        destinations: Destinations = ["http://a"]
        token: SecretStr = SecretStr("geheim")

        @field_validator("token")
        @classmethod
        def _short(cls, value: SecretStr) -> SecretStr:
            raise ValueError("is too short")

    with pytest.raises(ValidationError) as raised:
        Own()

    assert describe_faults(raised.value, Own) == [
        "upstream 'own': token (UPSTREAM_OWN_TOKEN): is too short"
    ]


def test_fault_in_code_names_the_variable_too() -> None:
    """The fault may be corrected in code or in the environment."""
    policy: Any = "fastest"
    with pytest.raises(ValidationError) as raised:
        Billing(policy=policy, wrong=1)  # type: ignore[call-arg]

    assert [line.partition("): ")[0] for line in describe_faults(raised.value, Billing)] == [
        "upstream 'billing': policy (UPSTREAM_BILLING_POLICY",
        "upstream 'billing': wrong (UPSTREAM_BILLING_WRONG",
    ]

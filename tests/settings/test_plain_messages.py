"""Faults as users of shells, Compose, Kubernetes and Helm make them, each with its mend."""

from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di import Destinations, SettingsError, UpstreamSettings
from fastapi_proxy_di.settings import effective_sources, load_all, load_upstream


class Billing(UpstreamSettings, name="billing"):
    """A declared upstream."""

    destinations: Destinations = ["http://a"]


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("PRESERVE_HOST", "enabled", "is neither true nor false, got 'enabled'"),
        ("HEALTH__JITTER", "much", "is not a number, got 'much'"),
        ("HEALTH__JITTER", "10%", "got '10%'; write a share, such as 0.1 for 10%"),
        ("HEALTH__JITTER", "10", "must be at most 1, got '10'"),
        ("RETRIES__ATTEMPTS", "3.5", "is not a whole number, got '3.5'"),
        ("HEALTH__FALL", "0", "must be at least 1, got '0'"),
        ("DESTINATIONS", '[{"url": "http://a", "weight": 0}]', "must be more than 0"),
        ("DESTINATIONS", '[{"url": "http://a", "weight": "inf"}]', "should be a finite number"),
        ("EXPLAIN", "true", "must be 'off', 'header' or 'log', got 'true'"),
        ("TLS__CA_FILE", "/no/ca.pem", "is not the path of a file, got '/no/ca.pem'"),
        ("REQUEST_HEADERS", '{"X-A": 3}', "is not a text; in JSON, write it in quotes"),
        ("REQUEST_HEADERS__X__A", "a", "must be a text, not a list or an object"),
        ("REQUEST_HEADERS", "{'X-A': 'a'}", "(JSON has double quotes)"),
        ("HEALTH__HEADERS", "X-A: a", "header: UPSTREAM_BILLING_HEALTH__HEADERS__X_NAME"),
        ("REMOVE_REQUEST_HEADERS", '["X-A"', "starts like JSON and cannot be decoded"),
        ("RETRIES__METHODS", "['GET']", "starts like JSON and cannot be decoded"),
        ("DESTINATIONS", '["http://a",]', "starts like JSON and cannot be decoded"),
        ("DESTINATIONS", "['http://a']", "starts like JSON and cannot be decoded"),
        ("DESTINATIONS", "[8080]", 'is not an address; give a text such as "http://10.0.0.1:8080"'),
        ("DESTINATIONS", "http://${HOST}:80", "holds a placeholder that nothing has replaced"),
        ("DESTINATIONS", "http://$(HOST):80", "holds a placeholder that nothing has replaced"),
        ("DESTINATIONS", "http://{{ .Values.host }}", "holds a placeholder that nothing has"),
        ("DESTINATIONS", "http://<no value>:80", "holds a placeholder that nothing has replaced"),
        ("DESTINATIONS", "http://a weight=5", 'as JSON: [{"url": "http://a", "weight": 2}]'),
        ("DESTINATIONS", '"http://a"', "write http://host:port or https://host:port; the value is"),
        ("DESTINATIONS", "[::1]:80", "write http://[::1]:80 or https://[::1]:80"),
        ("DESTINATIONS", "/run/a.sock", "write http+unix://%2Frun%2Fa.sock for a socket"),
        ("TRANSFORMS", '[{"kind": "remove_prefix"}]', "did you mean 'path_remove_prefix'? There"),
        ("TRANSFORMS", '[{"kind": "x"}]', "'x' is not a kind; there are path_prefix, "),
    ],
)
def test_fault_names_the_mend(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, mend: str
) -> None:
    """Each message says what is wrong with the value and what to write."""
    monkeypatch.setenv(f"UPSTREAM_BILLING_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_all({"billing": Billing})
    _, fault, *_ = str(caught.value).splitlines()

    assert f"(UPSTREAM_BILLING_{name}): " in fault
    assert mend in fault


@pytest.mark.parametrize("value", ['["X-A", ""]', '{"path": "/h"', 'say "a"'])
def test_quotes_within_a_value_are_not_taken_for_quotes_around_it(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """The hint would send its reader to the wrong place."""
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH", value)
    with pytest.raises(SettingsError) as caught:
        load_all({"billing": Billing})

    assert "the value is in quotes" not in str(caught.value)


@pytest.mark.parametrize(
    "variable",
    [
        "UPSTREAM_BILLING_URL",
        "UPSTREAM_BILLING_ADDRESSES",
        "UPSTREAM_BILLING_DESTINATION",
        "BILLING_DESTINATIONS",
        "UPSTREAMS_BILLING_DESTINATIONS",
        "UPSTREAM__BILLING__DESTINATIONS",
    ],
)
def test_missing_destinations_name_the_variable_that_was_meant_to_set_them(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Other words, and other prefixes."""
    monkeypatch.setenv(variable, "http://geheim")
    with pytest.raises(SettingsError) as caught:
        load_upstream("billing")
    _, _, *hints = str(caught.value).splitlines()

    assert len(hints) == 1
    assert variable in hints[0]
    assert hints[0].endswith("did you mean UPSTREAM_BILLING_DESTINATIONS?")


def test_destinations_of_others_are_no_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a variable without a value."""
    monkeypatch.setenv("BILLING_DESTINATIONS", "")
    monkeypatch.setenv("AUDIT_DESTINATIONS", "http://a")
    with pytest.raises(SettingsError) as caught:
        load_upstream("billing")

    assert len(str(caught.value).splitlines()) == 2


def test_one_destination_as_an_object_has_one_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts are no settings of their own."""
    monkeypatch.setenv("UPSTREAM_BILLING_DESTINATIONS", '{"url": "http://b", "weight": 2}')
    sources = effective_sources(Billing)

    assert sources["destinations"] == "UPSTREAM_BILLING_DESTINATIONS (environment)"
    assert not any(field.startswith("destinations.") for field in sources)


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("Billing", "did you mean 'billing'?"),
        ("UPSTREAM_BILLING", "did you mean 'billing'?"),
        ("billing api", "did you mean 'billing-api'?"),
        ("7", "is not a name of an upstream; use lower-case letters"),
        ("http://user:geheim@a", "give a name such as billing, and the address as"),
    ],
)
def test_wrong_name_of_an_upstream_names_the_mend(name: str, mend: str) -> None:
    """An address is not shown, because it may hold a password."""
    with pytest.raises(SettingsError) as caught:
        load_upstream(name)

    assert mend in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_name_as_an_attribute_is_a_fault() -> None:
    """Such a class would read variables without a prefix."""
    with pytest.raises(SettingsError, match=r"class Plain\(UpstreamSettings, name=\"billing\"\)"):

        class Plain(UpstreamSettings):
            name = "billing"

    with pytest.raises(SettingsError, match="class Annotated: the name is not an attribute"):

        class Annotated(UpstreamSettings, name="billing"):
            name: str  # type: ignore[misc]


def test_settings_in_a_section_of_their_file_name_the_mend(tmp_path: Path) -> None:
    """A file is for one upstream."""
    (tmp_path / "billing.toml").write_text("[filed]\npolicy = 'first'\n")

    class Filed(UpstreamSettings, name="filed"):
        model_config = SettingsConfigDict(toml_file=tmp_path / "billing.toml")
        destinations: Destinations = ["http://a"]

    with pytest.raises(SettingsError, match="at the top of their file, not in a section; there"):
        load_all({"filed": Filed})

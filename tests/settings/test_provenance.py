"""The source of each effective setting."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di.settings import (
    AffinitySettings,
    Destinations,
    HealthSettings,
    UpstreamSettings,
    effective_sources,
    settings_class,
)


def test_effective_sources_are_defaults_where_nothing_is_set() -> None:
    """Every field is listed."""
    sources = effective_sources(settings_class("billing"))

    assert set(sources.values()) == {"default"}
    assert {
        "destinations",
        "policy",
        "health.path",
        "affinity",
        "request_headers",
        "limits.queue",
    } <= set(sources)


def test_effective_sources_name_the_source_of_each_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nested fields too, with the variable that set them."""
    (tmp_path / ".env").write_text("UPSTREAM_BILLING_SLOW_START=3\nUPSTREAM_BILLING_POLICY=first\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "UPSTREAM_BILLING_AFFINITY__KEY").write_text("geheim" * 3)
    (tmp_path / "s.json").write_text('{"timeouts": {"connect": 1, "total": 9}, "slow_start": 1}')
    monkeypatch.setenv("UPSTREAM_BILLING_POLICY", "random")
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH", '{"interval": 3, "fall": 4}')
    monkeypatch.setenv("UPSTREAM_BILLING_HEALTH__FALL", "5")
    monkeypatch.setenv("UPSTREAM_BILLING_REQUEST_HEADERS__X_KEY", "geheim")

    class Billing(UpstreamSettings, name="billing"):
        model_config = SettingsConfigDict(
            env_file=tmp_path / ".env",
            secrets_dir=tmp_path / "secrets",
            json_file=tmp_path / "s.json",
        )
        destinations: Destinations = ["http://a"]
        health: HealthSettings = HealthSettings(path="/class", fall=9)
        affinity: AffinitySettings | None = AffinitySettings(
            cookie="lb", key=SecretStr("geheim" * 3)
        )
        response_headers: dict[str, SecretStr] = {"X-Class": SecretStr("geheim")}

    sources = effective_sources(Billing)

    assert {
        "policy": "UPSTREAM_BILLING_POLICY (environment)",
        "slow_start": "UPSTREAM_BILLING_SLOW_START (.env)",
        "health.interval": "UPSTREAM_BILLING_HEALTH (environment)",
        "health.fall": "UPSTREAM_BILLING_HEALTH__FALL (environment)",
        "health.path": "class default",
        "health.rise": "default",
        "affinity.key": "UPSTREAM_BILLING_AFFINITY__KEY (secrets directory)",
        "affinity.cookie": "class default",
        "timeouts.connect": str(tmp_path / "s.json"),
        "timeouts.activity": "default",
        "request_headers.x-key": "UPSTREAM_BILLING_REQUEST_HEADERS__X_KEY (environment)",
        "response_headers.x-class": "class default",
        "destinations": "class default",
    }.items() <= sources.items()
    assert "geheim" not in str(sources)

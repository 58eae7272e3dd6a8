"""Variables that set nothing, and the field that each may mean."""

from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from fastapi_proxy_di.settings import (
    Destinations,
    UpstreamSettings,
    unknown_variables,
)
from tests.settings.billing import Billing


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("POLCY", "; did you mean UPSTREAM_BILLING_POLICY?"),
        ("POLICI", "; did you mean UPSTREAM_BILLING_POLICY?"),
        (
            "HEALTH_PATH",
            "; write nested settings with two underscores: UPSTREAM_BILLING_HEALTH__PATH",
        ),
        ("destination", "; did you mean UPSTREAM_BILLING_DESTINATIONS?"),
        ("PORT", ""),
        ("PORT_80_TCP_ADDR", ""),
        ("POLICY__NAME", ""),
        ("DESTINATIONS__0", "; did you mean UPSTREAM_BILLING_DESTINATIONS?"),
        ("HEALTH__PATH__DEEP", ""),
    ],
)
def test_unknown_variables_suggest_the_similar_field(name: str, hint: str) -> None:
    """A mistyped name gets a suggestion, any other is only named."""
    variable = f"UPSTREAM_BILLING_{name}"

    warned = unknown_variables(Billing, {variable: "x"})

    assert warned == [f"{variable.upper()} sets nothing of upstream 'billing'{hint}"]


@pytest.mark.parametrize(
    "name",
    [
        "UPSTREAM_BILLING_POLICY",
        "upstream_billing_policy",
        "UPSTREAM_BILLING_HEALTH__PATH",
        "UPSTREAM_BILLING_HEALTH__PAHT",
        "UPSTREAM_BILLING_REQUEST_HEADERS__X_KEY",
        "UPSTREAM_BILLING_HEALTH__HEADERS__X_KEY",
        "UPSTREAM_OTHER_POLCY",
        "PATH",
    ],
)
def test_unknown_variables_leave_out_variables_that_are_read(name: str) -> None:
    """Unknown nested names are faults already; other prefixes are ignored."""
    assert unknown_variables(Billing, {name: "x"}) == []


def test_unknown_variables_leave_out_those_of_another_upstream() -> None:
    """The prefix of a longer name may begin with that of a shorter one."""

    class Health(UpstreamSettings, name="billing-health"):
        destinations: Destinations = ["http://a"]

    environ = {"UPSTREAM_BILLING_HEALTH__PATH": "/", "UPSTREAM_BILLING_HEALTH_POLICY": "first"}

    assert unknown_variables(Billing, environ, ["billing", "billing-health"]) == []
    assert unknown_variables(Health, environ, ["billing"]) == []
    assert len(unknown_variables(Billing, environ)) == 1
    assert len(unknown_variables(Health, {"UPSTREAM_BILLING_HEALTH_X": "1"}, ["billing"])) == 1


@pytest.mark.parametrize(
    "service", ["UPSTREAM_BILLING", "UPSTREAM_BILLING_HEALTH", "UPSTREAM_BILLING_TLS"]
)
def test_unknown_variables_leave_out_service_links(service: str) -> None:
    """Kubernetes sets them for a service that is called ``upstream-billing``."""
    links = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "80",
        f"{service}_SERVICE_PORT_HTTP_WEB": "80",
        f"{service}_PORT": "tcp://10.0.0.1:80",
        f"{service}_PORT_80_TCP": "tcp://10.0.0.1:80",
        f"{service}_PORT_80_TCP_PROTO": "tcp",
        f"{service}_PORT_80_TCP_PORT": "80",
        f"{service}_PORT_80_TCP_ADDR": "10.0.0.1",
    }

    assert unknown_variables(Billing, links) == []
    del links[f"{service}_SERVICE_HOST"]
    assert len(unknown_variables(Billing, links)) == 7


def test_unknown_variables_leave_out_an_upstream_that_is_not_mentioned() -> None:
    """``billing-v2`` has destinations, so ``check billing`` has nothing to say about it."""
    environ = {
        "UPSTREAM_BILLING_V2_DESTINATIONS": "http://a",
        "UPSTREAM_BILLING_V2_HEALTH__PATH": "/",
        "UPSTREAM_BILLING_V2_POLCY": "first",
    }

    assert unknown_variables(Billing, environ) == []


def test_unknown_variables_ignore_empty_variables() -> None:
    """Empty variables count as unset."""
    assert unknown_variables(Billing, {"UPSTREAM_BILLING_POLCY": ""}) == []


def test_unknown_variables_include_dotenv_files(tmp_path: Path) -> None:
    """Mistyped names in ``.env`` are reported, too."""
    (tmp_path / ".env").write_text("UPSTREAM_BILLING_POLCY=x\nOTHER=x\nUPSTREAM_BILLING_FLAG\n")

    class FromFile(UpstreamSettings, name="billing"):
        model_config = SettingsConfigDict(env_file=tmp_path / ".env")

    warned = unknown_variables(FromFile, {})

    assert [text.split()[0] for text in warned] == ["UPSTREAM_BILLING_POLCY"]

"""Settings of TLS."""

from collections.abc import Callable

import pytest
from pydantic import BaseModel, ValidationError

from fastapi_proxy_di.settings import (
    TlsSettings,
)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TlsSettings.model_validate({"client_key": __file__}), "without client_cert"),
        (lambda: TlsSettings.model_validate({"ca_file": __file__, "verify": False}), "no effect"),
        (
            lambda: TlsSettings.model_validate({"ca_file": "/no/such/file"}),
            "does not point to a file",
        ),
    ],
)
def test_tls_refuses_contradictions(build: Callable[[], BaseModel], message: str) -> None:
    """Settings that cannot work are a fault at start."""
    with pytest.raises(ValidationError, match=message):
        build()


def test_tls_takes_a_certificate_and_its_key() -> None:
    """Verification stays on."""
    settings = TlsSettings.model_validate({"client_cert": __file__, "client_key": __file__})

    assert settings.verify

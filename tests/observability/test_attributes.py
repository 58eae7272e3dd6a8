"""The values of attributes that spans and metrics share."""

import pytest

from fastapi_proxy_di.observability.attributes import method_of, server_of
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import DestinationSettings


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://10.0.0.1:8080/base", ("10.0.0.1", 8080)),
        ("https://api.internal", ("api.internal", 443)),
        ("http://[::1]:81", ("::1", 81)),
        ("http+unix://%2Frun%2Fapp.sock", ("/run/app.sock", None)),
        ("asgi://package.module:app", ("package.module:app", None)),
    ],
)
def test_server_is_named_by_its_address(url: str, server: tuple[str, int | None]) -> None:
    """A socket and an app of this process have no port."""
    assert server_of(Destination(DestinationSettings(url=url))) == server


@pytest.mark.parametrize(
    ("method", "attribute"),
    [(b"GET", "GET"), (b"QUERY", "QUERY"), (b"get", "_OTHER"), (b"PURGE", "_OTHER")],
)
def test_method(method: bytes, attribute: str) -> None:
    """A client cannot make a new value."""
    assert method_of(method) == attribute

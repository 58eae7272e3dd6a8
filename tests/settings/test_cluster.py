"""Settings of the shared state: addresses, what belongs together, and faults without secrets."""

import pytest

from fastapi_proxy_di.settings import read_proxy_settings

PREFIX = "FASTAPI_PROXY_CLUSTER__"
KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    "address",
    [
        "redis://localhost",
        "redis://localhost/",
        "redis+cluster://a:7000,b:7000/0",
        "rediss://user:secret@redis.example:6380/1",
        "unix:///run/redis.sock",
        "redis+sentinel://a:26379,b:26379/mymaster/0",
        "redis+cluster://a:7000,b:7000",
    ],
)
def test_store_takes_each_kind(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One server, its socket, Sentinel and a Redis Cluster."""
    for name, value in (("STORE", address), ("NAME", "shop"), ("KEY", KEY)):
        monkeypatch.setenv(PREFIX + name, value)

    settings, faults = read_proxy_settings()

    assert faults == []
    assert settings is not None
    assert settings.cluster.store is not None
    assert settings.cluster.store.get_secret_value() == address


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("STORE", "http://user:secret@redis", "begins with none of redis://, rediss://, unix://"),
        ("STORE", "redis://user:secret@", "has no host"),
        ("STORE", "unix://run", "is no path of a socket"),
        ("STORE", "redis+sentinel://a:26379", "names no service"),
        ("STORE", "redis://host/secret", "has a database that is no number"),
        ("STORE", "rediss://host:6380/1/2", "has a database that is no number"),
        ("STORE", "redis://host/-1", "give it as the path, e.g. redis://localhost:6379/0"),
        ("STORE", "redis+sentinel://a:26379/mymaster/secret", "has a database that is no number"),
        ("STORE", "redis+cluster://a:7000/1", "has a database, but a Redis Cluster has only 0"),
        ("STORE", "redis://[secret", "is no address"),
        ("NAME", "the shop", "is no name"),
        ("NAME", "", "is required with 'store'"),
        ("KEY", "", "is required with 'store'"),
        ("KEY", "secret", "is shorter than 16 characters"),
        ("TIMEOUT", "0", "must be more than 0"),
        ("ON_STORE_LOST", "open", "must be 'local' or 'refuse'"),
    ],
)
def test_fault_names_the_variable_and_no_secret(
    name: str, value: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fault for each, and the password of an address is in none."""
    given = {"STORE": "redis://localhost", "NAME": "shop", "KEY": KEY, name: value}
    for one, text in given.items():
        monkeypatch.setenv(PREFIX + one, text)

    settings, faults = read_proxy_settings()

    assert settings is None
    (only,) = faults
    assert f"cluster.{name.lower()} ({PREFIX}{name})" in only
    assert fault in only
    assert "secret" not in only


def test_nothing_is_shared_by_default() -> None:
    """Without a store neither name nor key is needed."""
    settings, faults = read_proxy_settings()

    assert faults == []
    assert settings is not None
    assert settings.cluster.store is None

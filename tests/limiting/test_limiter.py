"""What is counted together in one process, and that its keys are hidden."""

from __future__ import annotations

from fastapi_proxy_di.limiting.limiter import Limit, LocalLimiter
from fastapi_proxy_di.limiting.rates import read_rates


def test_requests_are_counted_together_by_name_key_and_rate() -> None:
    """Those without a key have one key in common, which no text is equal to."""
    limiter = LocalLimiter()
    limits = {name: Limit(name, read_rates(["1/minute"])) for name in ("a", "b")}

    def admitted(name: str, key: str | None) -> bool:
        return not limiter.take(limits[name], key, 1)[0].wait

    keys = ["x", "y", None, "", "None", "\udc80", "\udc81"]
    for name, key in [("b", "x"), *(("a", key) for key in keys)]:
        assert admitted(name, key), (name, key)
        assert not admitted(name, key), (name, key)


def test_keys_are_not_in_the_memory_of_the_limiter() -> None:
    """They are digests by a secret of the process, which differs in each."""
    limiter, other = LocalLimiter(), LocalLimiter()
    (counted,) = Limit("name", read_rates(["1/minute"])).counted("ada@example.org")

    assert b"ada" in counted
    assert limiter.hide(counted) == limiter.hide(counted) != other.hide(counted)
    assert len(limiter.hide(counted)) == 16
    assert b"ada" not in limiter.hide(counted)

"""What is counted together in one process, and that its keys are hidden."""

from __future__ import annotations

from fastapi_proxy_di.limiting.limiter import LocalLimiter, counted
from fastapi_proxy_di.limiting.rates import read_rate, read_rates


async def test_requests_are_counted_together_by_name_key_and_rate() -> None:
    """Those without a key have one key in common, which no text is equal to."""
    limiter = LocalLimiter()
    rates = read_rates(["1/minute"])

    async def admitted(name: str, key: str | None) -> bool:
        return not (await limiter.take(name, key, rates, 1))[0].wait

    for name, key in [("a", "x"), ("b", "x"), ("a", "y"), ("a", None), ("a", ""), ("a", "None")]:
        assert await admitted(name, key), (name, key)
        assert not await admitted(name, key), (name, key)


async def test_keys_are_not_in_the_memory_of_the_limiter() -> None:
    """They are digests by a secret of the process, which differs in each."""
    limiter, other = LocalLimiter(), LocalLimiter()
    text = counted("name", "ada@example.org", read_rate("1/minute"))

    assert limiter.hide(text) == limiter.hide(text) != other.hide(text)
    assert len(limiter.hide(text)) == 32
    assert "ada" not in limiter.hide(text)

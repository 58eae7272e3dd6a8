"""Policy first: the first in the order of the settings."""

from fastapi_proxy_di.balancing.first import First
from tests.pools.samples import destinations_of


def test_first_always_picks_the_first() -> None:
    """Its further choices are the others, in order."""
    available = destinations_of(3)

    assert First().pick(available) is available[0]
    assert list(First().order(available)) == list(available)

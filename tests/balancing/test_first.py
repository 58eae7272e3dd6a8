"""first: the first in the order of the settings."""

from fastapi_proxy_di.balancing.first import First
from tests.pools.samples import destinations_of


def test_first_always_takes_the_first() -> None:
    """The others stand by, in order."""
    available = destinations_of(3)

    assert First().pick(available) is available[0]
    assert list(First().order(available)) == list(available)

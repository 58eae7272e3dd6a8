"""The error of a pick without a destination."""

from __future__ import annotations

from fastapi_proxy_di.errors import Attempt, Failure, LimitExceeded, NoAvailableDestination
from fastapi_proxy_di.forwarding.unavailable import unavailable
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import DestinationSettings
from tests.support.requests_in_flight import begin


def pool_of(*destinations: DestinationSettings) -> Pool:
    """Make the pool of upstream billing."""
    return Pool("billing", destinations, panic=False)


def test_no_candidate_is_unavailable_with_the_earlier_attempts() -> None:
    """Retry-After has the given time."""
    attempt = Attempt("http://a", Failure.RESPONSE_HEAD)
    error = unavailable(pool_of(), (attempt,), 7.0, 3.0)

    assert type(error) is NoAvailableDestination
    assert "no destination of billing is available" in str(error)
    assert (error.upstream, tuple(error.attempts), error.retry_after) == (
        "billing",
        (attempt,),
        7.0,
    )


def test_full_destinations_are_a_limit() -> None:
    """Requests in flight may end at any time, so Retry-After has the usual time."""
    pool = pool_of(DestinationSettings(url="http://a", max_in_flight=1))
    begin(pool.destinations[0])
    error = unavailable(pool, (), 7.0, 3.0)

    assert type(error) is LimitExceeded
    assert "every destination of billing is at its limit" in str(error)
    assert error.retry_after == 7.0


def test_used_up_windows_name_the_time_until_the_next_one() -> None:
    """It is at least a second, because Retry-After has whole seconds."""
    pool = pool_of(DestinationSettings(url="http://a", max_requests=1))
    begin(pool.destinations[0])

    assert unavailable(pool, (), 7.0, 30.0).retry_after == 30.0
    assert unavailable(pool, (), 7.0, 0.2).retry_after == 1.0


def test_room_elsewhere_is_of_no_use_to_a_client_of_another_destination() -> None:
    """Affinity has refused the pick although a destination has room."""
    pool = pool_of(DestinationSettings(url="http://a"))
    error = unavailable(pool, (), 7.0, 3.0)

    assert type(error) is NoAvailableDestination
    assert "the client belongs to" in str(error)


def test_cooling_destinations_name_the_time_until_the_first_is_back() -> None:
    """It is at least a second, because Retry-After has whole seconds."""
    pool = pool_of(DestinationSettings(url="http://a"))
    pool.cool_down(pool.destinations[0], 100.0)
    error = unavailable(pool, (), 7.0, 3.0, 30.0)

    assert type(error) is NoAvailableDestination
    assert "Retry-After" in str(error)
    assert error.retry_after == 30.0
    assert unavailable(pool, (), 7.0, 3.0, 0.2).retry_after == 1.0

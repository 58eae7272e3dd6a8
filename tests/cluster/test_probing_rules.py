"""Rules of shared probes: parts of an upstream, what is trusted and what is believed."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.cluster.probing_rules import (
    SHARD,
    Found,
    Successes,
    body_of,
    found_in,
    is_named,
    shards,
    suspicious,
)
from fastapi_proxy_di.cluster.signing import Signer
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import DestinationSettings
from tests.pools.samples import pool_of


def test_shards_do_not_depend_on_the_order_of_the_settings() -> None:
    """Two processes whose sources gave another order probe the same parts."""
    destinations = pool_of(2 * SHARD + 50).destinations

    parts = shards(destinations)

    assert [len(one) for one in parts] == [100, 100, 50]
    assert shards(destinations[::-1]) == parts
    assert {one for part in parts for one in part} == set(destinations)


def test_record_of_a_shard_is_never_too_long() -> None:
    """Also with long addresses and reasons that JSON escapes."""
    settings = [DestinationSettings(url=f"http://10.0.0.1/{n:03}{'a' * 990}") for n in range(100)]
    destinations = Pool("billing", settings, panic=True).destinations

    parts = shards(destinations)

    assert len(parts) > 1
    assert [one for part in parts for one in part] == list(destinations)
    for part in parts:
        found = {one.url: Found(False, '"' * 40 + "\u20ac" * 80, 1.25) for one in part}
        assert Signer(b"k" * 32, "shop").sign(("billing",), body_of(found, 1))


@pytest.mark.parametrize(
    ("began", "total", "suspect"),
    [
        ((), 1, False),
        ((99.5,), 1, True),
        ((98.0,), 1, False),
        ((99.5, 99.9), 4, False),
        ((99.1, 99.5, 99.9), 4, True),
        ((97.0, 99.5, 99.9), 4, False),
    ],
)
def test_process_distrusts_its_probes_if_more_than_half_begin_to_fail_at_once(
    began: tuple[float, ...], total: int, suspect: bool
) -> None:
    """Half of a pool, or one after the other, is believed."""
    assert suspicious(began, total, 1.0, 100.0) is suspect


def test_success_counts_until_its_time_is_over() -> None:
    """Also one since the last look, and none of the counts before an ejection ended."""
    (one,) = pool_of(1).destinations
    successes = Successes()
    assert not successes.within(one, 1, 100)

    one.successes += 1
    assert successes.within(one, 1, 100)
    successes.mark([one], 100)
    successes.mark([one], 100.5)
    assert successes.within(one, 1, 100.9)
    assert not successes.within(one, 1, 101)
    one.successes = 0
    successes.mark([one], 102)
    one.successes = 1

    assert successes.within(one, 1, 102)


def test_record_of_probes_is_believed_for_its_time() -> None:
    """What is older says nothing; a long reason is cut."""
    found = {
        "http://10.0.0.1": Found(True, "", 1.5),
        "http://10.0.0.2": Found(False, "x" * 1000),
    }
    body = body_of(found, 5000)

    assert found_in(body, 3, 8001) == {}
    read = found_in(body, 3, 8000)
    assert read["http://10.0.0.1"] == found["http://10.0.0.1"]
    assert read["http://10.0.0.2"] == Found(False, "x" * 80)


def test_address_is_probed_by_others_if_a_current_record_names_it() -> None:
    """A record of a part that nobody has any more does not count for ever."""
    found = {"http://10.0.0.1": Found(True)}
    records = {0: body_of({}, 5000), 1: body_of(found, 5000)}

    assert is_named("http://10.0.0.1", records, 2, 9000)
    assert is_named("http://10.0.0.1", records, 1, 5000)
    assert not is_named("http://10.0.0.1", records, 1, 5001)
    assert not is_named("http://10.0.0.2", records, 2, 5000)

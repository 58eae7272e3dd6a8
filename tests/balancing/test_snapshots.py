"""Snapshots: one structure per tuple, a few are kept."""

from collections.abc import Sequence

from fastapi_proxy_di.balancing.snapshots import Snapshots
from fastapi_proxy_di.pools.destination import Destination
from tests.pools.samples import destinations_of


def test_snapshots_derive_once_while_tiers_alternate() -> None:
    """A spill-over uses two tuples in turn; each is derived once."""
    derived: list[Sequence[Destination]] = []
    snapshots = Snapshots(derived.append)
    low, high = destinations_of(2), destinations_of(3)
    for _ in range(10):
        snapshots.get(low)
        snapshots.get(high)

    assert derived == [low, high]


def test_snapshots_drop_the_oldest() -> None:
    """A pool that keeps changing needs no more memory."""
    snapshots = Snapshots(len)
    kept = [destinations_of(2) for _ in range(20)]
    for available in kept:
        snapshots.get(available)

    assert len(snapshots._kept) == 8
    assert snapshots.get(kept[-1]) == 2

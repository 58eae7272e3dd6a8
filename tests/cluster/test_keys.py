"""All keys of an app are in one slot, and none is used twice."""

from __future__ import annotations

from fastapi_proxy_di.cluster.keys import Keys


def test_keys_are_in_one_slot_and_differ() -> None:
    """They begin with the name in braces, by which a Redis Cluster chooses the slot."""
    keys = Keys("shop")
    names = [
        keys.epoch,
        keys.stream,
        keys.members,
        keys.state("billing"),
        keys.beat("host:1:a"),
        keys.lease("billing", 0),
        keys.lease("billing", 1),
        keys.suspect("billing", 0),
        keys.votes("billing"),
        keys.traffic("billing", "ab"),
        keys.limit("ab"),
        keys.series("billing"),
        keys.totals("billing", "host:1:a.1"),
        keys.gone("billing"),
        keys.next_gone("billing", "host:1:a"),
    ]

    assert all(name.startswith("{shop}:") for name in names)
    assert len(set(names)) == len(names)

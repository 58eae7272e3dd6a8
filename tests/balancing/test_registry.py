"""build_policy: names, imports, classes, instances, and faults."""

from collections.abc import Sequence
from random import Random

import pytest

from fastapi_proxy_di import settings
from fastapi_proxy_di.balancing.first import First
from fastapi_proxy_di.balancing.policy import BalancingPolicy, PickRequest
from fastapi_proxy_di.balancing.random_choice import RandomChoice
from fastapi_proxy_di.balancing.registry import POLICIES, build_policy
from fastapi_proxy_di.balancing.selection import select
from fastapi_proxy_di.pools.destination import Destination
from tests.pools.samples import pool_of


class Last:
    """A user's policy."""

    name = "last"

    def pick(
        self, available: Sequence[Destination], request: PickRequest | None
    ) -> Destination | None:
        """Pick the last."""
        return available[-1]


class Demanding(Last):
    """A policy that needs an argument."""

    def __init__(self, where: str) -> None:
        """Take an argument that ``build_policy`` does not give."""


INSTANCE = Last()
NUMBER = 7


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_build_policy_knows_the_built_in_names(name: str) -> None:
    """Each name gives its policy."""
    assert build_policy(name, random=Random(1)).name == name


def test_build_policy_knows_what_the_settings_allow() -> None:
    """The settings may not import policies, so they have a list of their own."""
    assert set(POLICIES) == set(settings.POLICIES)


def test_build_policy_imports_a_class_or_an_instance() -> None:
    """``package.module:Policy``, with ``random`` where it has such a parameter."""
    random = Random(1)

    assert isinstance(build_policy("fastapi_proxy_di.balancing.first:First", random=random), First)
    assert isinstance(
        build_policy("fastapi_proxy_di.balancing.random_choice:RandomChoice", random=random),
        RandomChoice,
    )
    assert build_policy(f"{__name__}:INSTANCE", random=random).name == "last"


def test_build_policy_accepts_classes_and_instances() -> None:
    """As given in code."""
    instance: BalancingPolicy = INSTANCE

    assert build_policy(instance, random=Random(1)) is instance
    assert isinstance(build_policy(Last, random=Random(1)), Last)


def test_select_uses_a_users_policy() -> None:
    """It picks as a built-in one does."""
    pool = pool_of(3)
    policy = build_policy(f"{__name__}:Last", random=Random(1))

    assert select(policy, pool) == (pool.destinations[-1], ())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("fastest", "unknown; allowed are power_of_two_choices, round_robin"),
        ("module:", "unknown; allowed are"),
        ("no_such_module:Policy", "cannot be imported"),
        (f"{__name__}:Absent", "cannot be imported"),
        (f"{__name__}:Demanding", "cannot be built"),
        (f"{__name__}:NUMBER", "is no balancing policy"),
        (7, "is no balancing policy"),
    ],
)
def test_build_policy_names_the_fault(spec: object, words: str) -> None:
    """A fault names the setting's value and what is allowed."""
    with pytest.raises(ValueError, match=words):
        build_policy(spec, random=Random(1))

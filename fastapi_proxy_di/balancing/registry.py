"""Builds the policy that the setting ``policy`` names: a built-in one, or one that is imported."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import isclass, signature
from random import Random
from typing import Final

from fastapi_proxy_di.balancing.first import First
from fastapi_proxy_di.balancing.hash import Hash
from fastapi_proxy_di.balancing.latency import Latency
from fastapi_proxy_di.balancing.least_requests import LeastRequests
from fastapi_proxy_di.balancing.peak_ewma import PeakEwma
from fastapi_proxy_di.balancing.policy import BalancingPolicy
from fastapi_proxy_di.balancing.prefix import Prefix
from fastapi_proxy_di.balancing.random_choice import RandomChoice
from fastapi_proxy_di.balancing.round_robin import RoundRobin
from fastapi_proxy_di.balancing.two_choices import TwoChoices

__all__ = ["POLICIES", "build_policy"]

POLICIES: Final[dict[str, Callable[[Random], BalancingPolicy]]] = {
    TwoChoices.name: lambda random: TwoChoices(random=random),
    RoundRobin.name: lambda random: RoundRobin(random=random),
    LeastRequests.name: lambda random: LeastRequests(random=random),
    RandomChoice.name: lambda random: RandomChoice(random=random),
    First.name: lambda random: First(),
    Latency.name: lambda random: Latency(random=random),
    PeakEwma.name: lambda random: PeakEwma(random=random),
    Hash.name: lambda random: Hash(random=random),
    Prefix.name: lambda random: Prefix(random=random),
}


def build_policy(spec: object, *, random: Random) -> BalancingPolicy:
    """Build the policy that ``spec`` names; called once per upstream, at start.

    Args:
        spec: A built-in name, ``"package.module:Policy"``, or an instance. The reference may
            name an instance, or a class, which is called with ``random=`` if it has such a
            parameter, else without arguments. Settings refuse a class given in code.
        random: Source of randomness for the policy.

    Raises:
        ValueError: The name is unknown, the import fails, or the object is no policy.
    """
    found = spec
    if isinstance(spec, str):
        builtin = POLICIES.get(spec)
        if builtin is not None:
            return builtin(random)
        found = _imported(spec)
    if isclass(found):
        try:
            arguments = {"random": random} if "random" in signature(found).parameters else {}
            found = found(**arguments)
        except TypeError as fault:
            raise ValueError(f"policy: {spec!r} cannot be built: {fault}") from fault
    if not isinstance(found, BalancingPolicy):
        raise ValueError(  # noqa: TRY004  # a fault of the settings, whatever its type
            f"policy: {spec!r} is no balancing policy: it needs a `name` and "
            "`pick(available, request)`"
        )
    return found


def _imported(spec: str) -> object:
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise ValueError(
            f"policy: {spec!r} is unknown; allowed are {', '.join(POLICIES)}, "
            "or package.module:Policy"
        )
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as fault:
        raise ValueError(f"policy: {spec!r} cannot be imported: {fault}") from fault

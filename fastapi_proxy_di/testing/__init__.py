"""The test kit for apps that proxy: replaced upstreams, faults on demand, a clock to move."""

from fastapi_proxy_di.testing.clock import Clock
from fastapi_proxy_di.testing.destinations import Handler, Source
from fastapi_proxy_di.testing.fixtures import StandInFixture
from fastapi_proxy_di.testing.received import Received
from fastapi_proxy_di.testing.stand_in import StandIn, stand_in
from fastapi_proxy_di.testing.steps import (
    Step,
    Turn,
    accept,
    close,
    echo,
    refuse,
    reply,
    reset,
    stall,
    too_many_requests,
    truncate,
)

__all__ = [
    "Clock",
    "Handler",
    "Received",
    "Source",
    "StandIn",
    "StandInFixture",
    "Step",
    "Turn",
    "accept",
    "close",
    "echo",
    "refuse",
    "reply",
    "reset",
    "stall",
    "stand_in",
    "too_many_requests",
    "truncate",
]

"""The actions of the status router: changes of one destination, asked for by JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from fastapi_proxy_di.upstream.balancer import Balancer

__all__ = ["ACTIONS", "Action", "ActionRequest"]


class ActionRequest(BaseModel):
    """The body of an action.

    Attributes:
        destination: The address of the destination, in any equivalent spelling.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", hide_input_in_errors=True, defer_build=True
    )

    destination: str


class _WeightRequest(ActionRequest):
    weight: float = Field(gt=0, le=65535, allow_inf_nan=False)  # as in DestinationSettings


@dataclass(frozen=True, slots=True)
class Action:
    """What an action does.

    Attributes:
        run: Does it.
        body: The model of its body.
        shared: Whether all processes that share a store follow.
    """

    run: Callable[[Balancer, Any], Awaitable[object]]
    body: type[ActionRequest] = ActionRequest
    shared: bool = False


async def _drain(balancer: Balancer, asked: ActionRequest) -> None:
    _ = balancer.drain(asked.destination)  # without a timeout there is nothing to wait for


async def _undrain(balancer: Balancer, asked: ActionRequest) -> None:
    balancer.undrain(asked.destination)


async def _weight(balancer: Balancer, asked: _WeightRequest) -> None:
    balancer.configure_destination(asked.destination, weight=asked.weight)


async def _readmit(balancer: Balancer, asked: ActionRequest) -> None:
    balancer.readmit(asked.destination)


async def _probe(balancer: Balancer, asked: ActionRequest) -> None:
    await balancer.probe(asked.destination)


ACTIONS: Final = {
    "drain": Action(_drain, shared=True),
    "undrain": Action(_undrain, shared=True),
    "weight": Action(_weight, _WeightRequest, shared=True),
    "readmit": Action(_readmit),
    "probe": Action(_probe),
}
"""By the last segment of the path."""

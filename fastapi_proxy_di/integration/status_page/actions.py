"""The actions of the status router: changes of one destination, asked for by JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from fastapi_proxy_di.upstream.balancer import Balancer

__all__ = ["ACTIONS", "ActionRequest"]


class ActionRequest(BaseModel):
    """The body of an action.

    Attributes:
        destination: The address of the destination.
        weight: The new weight, as in ``DestinationSettings``; only for the action ``weight``.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    destination: str
    weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)


async def _drain(balancer: Balancer, asked: ActionRequest) -> None:
    _ = balancer.drain(asked.destination)  # without a timeout there is nothing to wait for


async def _undrain(balancer: Balancer, asked: ActionRequest) -> None:
    balancer.undrain(asked.destination)


async def _weight(balancer: Balancer, asked: ActionRequest) -> None:
    if asked.weight is None:
        raise ValueError("weight is required, e.g. 2")
    balancer.configure_destination(asked.destination, weight=asked.weight)


async def _readmit(balancer: Balancer, asked: ActionRequest) -> None:
    balancer.readmit(asked.destination)


async def _probe(balancer: Balancer, asked: ActionRequest) -> None:
    await balancer.probe(asked.destination)


ACTIONS: Final[dict[str, Callable[[Balancer, ActionRequest], Awaitable[None]]]] = {
    "drain": _drain,
    "undrain": _undrain,
    "weight": _weight,
    "readmit": _readmit,
    "probe": _probe,
}
"""By the last segment of the path."""

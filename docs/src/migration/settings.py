# --8<-- [start:imports]
from collections.abc import Sequence
from typing import Literal

from fastapi_proxy_di import (
    Destination,
    Destinations,
    DestinationSettings,
    HealthSettings,
    TimeoutSettings,
    UpstreamSettings,
)

# --8<-- [end:imports]


# --8<-- [start:standard]
class Standard(UpstreamSettings, name="standard"):
    destinations: Destinations = ["http://a", "http://b"]
    policy: str = "latency"
    health: HealthSettings = HealthSettings(path="/health", interval=10, timeout=10)
    when_none_available: Literal["panic", "fail"] = "fail"
    timeouts: TimeoutSettings = TimeoutSettings(activity=60)


# --8<-- [end:standard]
# --8<-- [start:personalized]
class Personalized(UpstreamSettings, name="personalized"):
    destinations: Destinations = [
        DestinationSettings(url="http://api-1", health_path="/v1/status", max_requests=100),
        DestinationSettings(url="http://api-2", health_path="/health"),
    ]
    policy: str = "latency"
    health: HealthSettings = HealthSettings(path="/", interval=10)


# --8<-- [end:personalized]
# --8<-- [start:list]
class InTurn(UpstreamSettings, name="in-turn"):
    destinations: Destinations = ["http://a", "http://b"]
    policy: str = "round_robin"


# --8<-- [end:list]
# --8<-- [start:index]
class Turns:
    name = "turns"
    index = 0

    def pick(self, available: Sequence[Destination], request: object) -> Destination | None:
        if not available:
            return None
        picked = available[self.index % len(available)]
        self.index += 1
        return picked


turns = Turns()


class Settable(UpstreamSettings, name="settable"):
    destinations: Destinations = ["http://a", "http://b"]
    policy: object = turns


def start_over() -> None:
    turns.index = 0


# --8<-- [end:index]

"""The goals of a run, and whether it meets them. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.benchmarks.results import Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One bound on one number of a run.

    Attributes:
        title: What is bounded.
        bound: The limit.
        at_least: Whether the number must not be lower; by default it must not be higher.
        clean: `(load, contender)` that must have been measured without a single error.
        value: Computes the number; `None` if the run did not measure it.
    """

    title: str
    bound: float
    at_least: bool = False
    clean: tuple[str, str] | None = None
    value: Callable[[Results], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of one goal; `met` is `None` if it was not measured."""

    goal: Goal
    value: float | None
    met: bool | None


def judge(goal: Goal, results: Results) -> Verdict:
    """Compare the run with one goal."""
    value = goal.value(results)
    if value is None:
        return Verdict(goal=goal, value=None, met=None)
    met = value >= goal.bound if goal.at_least else value <= goal.bound
    if goal.clean is not None:
        row = results.row(*goal.clean)
        met = met and row is not None and row.errors == 0
    return Verdict(goal=goal, value=value, met=met)


def _ratio(upper: tuple[str, str], lower: tuple[str, str]) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        above, below = results.cost(*upper), results.cost(*lower)
        return None if above is None or below is None else above / below

    return value


def _imports(results: Results) -> float | None:
    if not results.imports:
        return None
    return results.imports["package"] / results.imports["base"]


def _idle_kib(results: Results) -> float | None:
    row = results.row("ws-idle", "router")
    return None if row is None else row.held_kib


def _cost_goal(title: str, bound: float, ours: tuple[str, str], theirs: tuple[str, str]) -> Goal:
    return Goal(title=title, bound=bound, clean=ours, value=_ratio(ours, theirs))


GOALS: Final = (
    *(
        _cost_goal(
            f"{title} over the bare FastAPI endpoint, {load}",
            bound,
            (load, ours),
            (load, "fastapi"),
        )
        for ours, title, bound in (
            ("router", "proxy_router", 1.6),
            ("mount", "mounted proxy_app", 0.85),
            ("alone", "proxy_app by itself", 0.5),
            ("serve", "serve", 0.5),
        )
        for load in ("get-8", "get-32")
    ),
    *(
        _cost_goal(
            f"proxy_router with one Depends over the endpoint with the same, {load}",
            1.6,
            (load, "router-depends"),
            (load, "fastapi-depends"),
        )
        for load in ("get-8", "get-32")
    ),
    *(
        _cost_goal(f"{title}, 512 connections over 8", 1.3, ("get-512", ours), ("get-8", ours))
        for ours, title in (
            ("router", "proxy_router"),
            ("mount", "mounted proxy_app"),
            ("alone", "proxy_app by itself"),
        )
    ),
    _cost_goal(
        "proxy_router, 1,000 destinations over 3",
        1.15,
        ("destinations", "router-1000"),
        ("destinations", "router-3"),
    ),
    *(
        _cost_goal(f"{title}, get-8", bound, ("get-8", ours), ("get-8", theirs))
        for title, bound, ours, theirs in (
            ("proxy_router over the same at an earlier commit", 1.03, "router", "before"),
            ("metrics for Prometheus over none", 1.15, "router-collector", "router"),
            (
                "metrics of attempts over those of requests alone",
                1.15,
                "router-metrics",
                "router-server-metrics",
            ),
            (
                "tracing with a small middleware's span over none",
                1.8,
                "router-own-spans",
                "router",
            ),
            (
                "spans of attempts over those of requests alone",
                1.8,
                "router-telemetry",
                "router-server-spans",
            ),
        )
    ),
    *(
        _cost_goal(
            f"100 MB {load} over the aiohttp gateway", 1.0, (load, "router"), (load, "aiohttp")
        )
        for load in ("download", "upload")
    ),
    Goal(title="import of the package over fastapi and httpx", bound=1.3, value=_imports),
    _cost_goal("WebSocket message over a direct ASGI echo", 1.9, ("ws", "router"), ("ws", "asgi")),
    Goal(
        title="KiB of memory per idle WebSocket tunnel",
        bound=60,
        clean=("ws-idle", "router"),
        value=_idle_kib,
    ),
)

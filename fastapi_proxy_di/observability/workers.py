"""Finds out whether this process is one of several workers of a server.

No server gives its workers their number. The number is in the arguments of the command, which the
workers share, or in variables. A number in a server's configuration file, or in a
call of ``uvicorn.run``, is not seen.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import cache

__all__ = ["warn_of_local_limits", "warn_of_local_sums", "warn_of_workers", "worker_count"]

_logger = logging.getLogger("fastapi_proxy_di.metrics")
_limits_logger = logging.getLogger("fastapi_proxy_di.limits")


def worker_count(
    arguments: Sequence[str], environment: Mapping[str, str], *, has_parent: bool
) -> int:
    """Give how many workers the server of this process runs, 1 if that is not known.

    Args:
        arguments: The command, as in ``sys.argv``.
        environment: The variables.
        has_parent: Whether a process of this program has started this one: uvicorn, granian and
            hypercorn start their workers so, gunicorn sets ``SERVER_SOFTWARE``.
    """
    if not has_parent and not environment.get("SERVER_SOFTWARE", "").startswith("gunicorn"):
        return 1
    program, *options = arguments or ("",)  # an embedded Python has no arguments at all
    options += shlex.split(environment.get("GUNICORN_CMD_ARGS", ""))
    if "--reload" in options:
        return 1
    found = re.search(r"\0(?:--workers[\0=]|-w\0?)(\d+)\0", "\0".join(["", *options, ""]))
    if found is not None:
        return int(found[1])
    if "hypercorn" in program:
        return 1
    value = environment.get("GRANIAN_WORKERS" if "granian" in program else "WEB_CONCURRENCY", "")
    return int(value) if value.isdecimal() else 1


@cache
def warn_of_workers() -> None:
    """Log once if a scrape of this process shows only a part of the traffic."""
    count = _workers()
    if count > 1:
        _logger.warning(
            "metrics: process %d is one of %d workers, and each scrape sees one of them; their "
            "series differ in the label process. For all of them at each scrape share a store and "
            "use metrics_router(scope='cluster'), run one worker per container or port, or export "
            "to OpenTelemetry",
            os.getpid(),
            count,
        )


@cache
def warn_of_local_sums() -> None:
    """Log once if sums of all processes are asked for, and several workers share no store."""
    count = _workers()
    if count > 1:
        _logger.warning(
            "metrics: process %d is one of %d workers that share no store, so "
            "metrics_router(scope='cluster') has the sums of one of them at each scrape. Set "
            "FASTAPI_PROXY_CLUSTER__STORE for the sums of all",
            os.getpid(),
            count,
        )


@cache
def warn_of_local_limits() -> None:
    """Log once if this process limits requests by itself, and is one of several workers."""
    count = _workers()
    if count > 1:
        _limits_logger.warning(
            "rate_limit: process %d is one of %d workers, and each counts by itself: together they "
            "admit up to %d times each limit. Set FASTAPI_PROXY_CLUSTER__STORE to count together",
            os.getpid(),
            count,
            count,
        )


def _workers() -> int:
    has_parent = multiprocessing.parent_process() is not None
    return worker_count(sys.argv, os.environ, has_parent=has_parent)

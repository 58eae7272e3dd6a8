"""The commands: ``demo``, ``serve``, ``check``, ``schema``, and the demo's ``demo-upstream``.

The library does not import this package. This file parses the arguments, runs one command and
gives its exit status; each command is a module. Commands that need an extra are imported after
the check that it is installed, so that a missing extra prints a message instead of a traceback.

Exit statuses: 0 success, 1 a check or a demo request failed, 2 wrong usage, wrong settings
or a missing extra, 130 ended by Ctrl-C, 141 a pipe of the output was closed (`check | head`),
as a shell reports SIGPIPE. SIGTERM ends ``serve`` with 0 and the demo with 143.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fastapi_proxy_di.cli import check, diff, schema
from fastapi_proxy_di.cli.arguments import Arguments, parse
from fastapi_proxy_di.cli.extra import missing_modules

__all__ = ["main"]

_INTERRUPTED = 130
_PIPE_CLOSED = 141
_USAGE = 2
# `check` needs none: without rich it prints a plain table.
_NEEDS = {
    "demo": ("uvicorn", "rich", "prometheus_client"),
    "demo-upstream": ("uvicorn",),
    "serve": ("uvicorn",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after the program's name; ``None`` takes ``sys.argv``, and lets
            settings name modules of the working directory, as ``python -m`` and uvicorn do.

    Returns:
        The exit status.

    Raises:
        SystemExit: Wrong usage (status 2), or ``--help`` (status 0).
    """
    if argv is None and not sys.flags.safe_path:
        sys.path.insert(0, "")
    arguments = parse(argv)
    missing = missing_modules(_NEEDS.get(arguments.command, ()))
    if missing:
        print(
            f"fastapi-proxy-di {arguments.command} needs {' and '.join(missing)}: "
            'pip install "fastapi-proxy-di[cli]"',
            file=sys.stderr,
        )
        return _USAGE
    try:
        status = _run(arguments)
        # Here, because a failure of Python's own flush at exit cannot be caught.
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has enough. Python flushes what is left at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    return status


def _run(arguments: Arguments) -> int:
    """Run the command; its extra is installed."""
    match arguments.command:
        case "demo":
            from fastapi_proxy_di.cli.demo import command as demo  # noqa: PLC0415 - needs an extra

            return demo.run(arguments.port, arguments.upstreams, once=arguments.once)
        case "demo-upstream":
            from fastapi_proxy_di.cli.demo import upstream as demo_upstream  # noqa: PLC0415

            return demo_upstream.run(
                arguments.name, arguments.port or 0, with_parent=arguments.with_parent
            )
        case "serve":
            from fastapi_proxy_di.cli import serve  # noqa: PLC0415

            return serve.run(arguments)
        case "schema":
            return schema.run(arguments.name)
        case _:  # "check": argparse refuses other words
            if arguments.diff is not None:
                return diff.run(arguments, arguments.diff)
            return check.run(arguments)

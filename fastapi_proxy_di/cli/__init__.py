"""The commands: ``demo``, ``serve``, ``check``, ``schema``, and the demo's ``demo-upstream``.

The package owns everything that only the command line needs. Nothing else of the
library imports it. This file turns words into one call and its exit status; each
command lives in its own module and is imported when it is asked for, so that
``--help`` is quick and a missing extra is a sentence instead of a traceback.

Exit statuses: 0 all is well, 1 a check or a demo request failed, 2 wrong usage, wrong
settings or a missing extra, 130 ended by Ctrl-C. SIGTERM ends ``serve`` with 0 and the
demo with 143.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fastapi_proxy_di.cli.arguments import Arguments, parse
from fastapi_proxy_di.cli.extra import missing_modules

__all__ = ["main"]

_INTERRUPTED = 130
_USAGE = 2
# `check` is not here: it needs no server, and without rich it prints a plain table.
_NEEDS = {"demo": ("uvicorn", "rich"), "demo-upstream": ("uvicorn",), "serve": ("uvicorn",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after the program's name; ``None`` takes ``sys.argv``, and lets
            settings name modules of the working directory, as ``python -m`` and uvicorn do.

    Returns:
        The exit status.

    Raises:
        SystemExit: Usage that argparse refuses (status 2), or ``--help`` (status 0).
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
        return _run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(arguments: Arguments) -> int:
    """Import the command's module, and run it."""
    match arguments.command:
        case "demo":
            from fastapi_proxy_di.cli.demo import command as demo  # noqa: PLC0415 - see the module's docstring

            return demo.run(arguments.port, arguments.upstreams, once=arguments.once)
        case "demo-upstream":
            from fastapi_proxy_di.cli.demo import upstream as demo_upstream  # noqa: PLC0415

            return demo_upstream.run(
                arguments.name, arguments.port or 0, with_parent=arguments.with_parent
            )
        case "serve":
            from fastapi_proxy_di.cli import serve  # noqa: PLC0415

            return serve.run(
                arguments.names,
                arguments.host,
                8000 if arguments.port is None else arguments.port,
                access_log=arguments.access_log,
            )
        case "schema":
            from fastapi_proxy_di.cli import schema  # noqa: PLC0415

            return schema.run(arguments.name)
        case _:  # "check": argparse lets nothing else through
            from fastapi_proxy_di.cli import check  # noqa: PLC0415

            return check.run(arguments.names)

"""Parses the command line. Imports neither uvicorn nor rich."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastapi_proxy_di import __version__
from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings.names import check_name

Command = Literal["demo", "demo-upstream", "serve", "check", "schema"]

_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(slots=True)
class Arguments(argparse.Namespace):
    """The parsed command line; attributes of other commands keep their defaults."""

    command: Command = "demo"
    host: str = "127.0.0.1"
    port: int | None = None
    upstreams: int = 3
    once: bool = False
    name: str = ""
    names: tuple[str, ...] = ()
    with_parent: bool = False
    access_log: bool = True
    workers: int = 1
    env_files: list[Path] = field(default_factory=list)
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    status: int | None = None
    diff: Path | None = None


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """Read the command line.

    Raises:
        SystemExit: Wrong usage (2), or ``--help`` and ``--version`` (0).
    """
    parser = _parser()
    arguments = parser.parse_args(argv, Arguments())
    arguments.names = tuple(arguments.names)
    if arguments.once and arguments.upstreams < 2:
        parser.error("demo --once takes one upstream down at a time: --upstreams must be 2 or more")
    if arguments.ssl_keyfile is not None and arguments.ssl_certfile is None:
        parser.error("--ssl-keyfile is the key of a certificate: give --ssl-certfile as well")
    if arguments.status is not None and arguments.workers > 1:
        parser.error(
            "--status shows the state of one process, and each of several --workers has its own"
        )
    if len(set(arguments.names)) < len(arguments.names):
        parser.error("an upstream is named twice")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastapi-proxy-di",
        description="A gateway in front of your upstreams: try it, run it, check its settings.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_demo(commands)
    _add_serve(commands)
    _add_check(commands)
    _add_schema(commands)
    _add_demo_upstream(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="see it work: a gateway, small real upstreams, live traffic",
        description="Starts small real upstream servers as processes of their own and a gateway "
        "in front of them, sends traffic through it, and shows where it goes. Kill an upstream and "
        "start it again: the commands are on the screen. Ctrl-C ends everything.",
    )
    demo.add_argument(
        "--port",
        type=_port,
        help="port of the gateway on 127.0.0.1 (default: 8000; with --once any free one)",
    )
    demo.add_argument(
        "--upstreams", type=_count, default=3, metavar="N", help="how many (default: %(default)s)"
    )
    demo.add_argument(
        "--once",
        action="store_true",
        help="drive a short load, stop, kill and revive upstreams meanwhile, print a summary and "
        "exit: 0 if no request failed, 1 if one did",
    )


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="run a gateway from the environment, no code",
        description="Runs a gateway whose settings come from the environment "
        "(UPSTREAM_<NAME>_DESTINATIONS and so on). One upstream is mounted at /, several at "
        "/<name>. Exit status 2 if the settings are wrong.",
    )
    serve.add_argument("names", nargs="+", type=_name, metavar="upstream")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    serve.add_argument("--port", type=_port, help="0 takes any free one (default: 8000)")
    serve.add_argument(
        "--no-access-log", action="store_false", dest="access_log", help="do not log each request"
    )
    serve.add_argument(
        "--workers",
        type=_positive,
        default=1,
        metavar="N",
        help="worker processes, each with its own connections, probes and limits (default: 1)",
    )
    _add_env_file(serve)
    serve.add_argument(
        "--ssl-certfile", type=Path, metavar="FILE", help="serve TLS with this certificate (PEM)"
    )
    serve.add_argument(
        "--ssl-keyfile",
        type=Path,
        metavar="FILE",
        help="its key, if the certificate's file has none; the key's password is read from the "
        "variable UVICORN_SSL_KEYFILE_PASSWORD",
    )
    serve.add_argument(
        "--status",
        type=_port,
        metavar="PORT",
        help="show the status page on this port of 127.0.0.1, 0 for any free one; other machines "
        "cannot reach it, because it has no login. Not with several workers",
    )


def _add_env_file(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--env-file",
        action="append",
        type=Path,
        default=[],
        dest="env_files",
        metavar="FILE",
        help="read variables from this file; the environment overrides them, and later files "
        "override earlier ones (may be given several times)",
    )


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check",
        help="validate settings and probe every destination",
        description="Validates the settings of the upstreams and probes each destination once: "
        "a request to its health path, else a connection. Says where each value that is no "
        "default came from, and lists the fields that a declared class adds. Exit status 0 if "
        "all is well, 1 if a probe failed, 2 if the settings are wrong.",
    )
    check.add_argument(
        "names",
        nargs="+",
        type=_name_or_class,
        metavar="upstream",
        help="a name, a declared settings class (package.module:Billing), or an app "
        "(package.module:app), which is imported and not started",
    )
    _add_env_file(check)
    check.add_argument(
        "--diff",
        type=Path,
        metavar="OLD",
        help="show only which settings differ from those with the variables of this file in place "
        "of --env-file: what a reload would change. Secrets are not shown, nothing is probed",
    )


def _add_schema(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    schema = commands.add_parser(
        "schema",
        help="print the JSON Schema of an upstream's settings",
        description="Prints the JSON Schema of the settings of an upstream, for editors and for "
        "checks of TOML, YAML and JSON files.",
    )
    schema.add_argument("name", nargs="?", type=_name, default="upstream", metavar="upstream")


def _add_demo_upstream(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    # Without `help`, so that the list of commands does not show this internal one.
    upstream = commands.add_parser(
        "demo-upstream",
        description="Runs one small upstream server as the demo does: JSON, an event stream, a "
        "WebSocket echo, uploads. `demo` prints the command that starts a killed one again.",
    )
    upstream.add_argument(
        "--name", default="a", help="its name in responses (default: %(default)s)"
    )
    upstream.add_argument("--port", type=_port, default=0, help="default: any free one")
    upstream.add_argument(
        "--with-parent", action="store_true", help="end when the process that started it is gone"
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 0 to 65535")
    return port


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of workers, 1 or more")
    return number


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 26:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 26")
    return count


def _name_or_class(text: str) -> str:
    if ":" not in text or "://" in text:
        return _name(text)
    if not _CLASS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no class or app; write package.module:app")
    return text


def _name(text: str) -> str:
    try:
        return check_name(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

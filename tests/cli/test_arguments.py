"""The arguments of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastapi_proxy_di import __version__
from fastapi_proxy_di.cli.arguments import parse


def test_demo_has_defaults() -> None:
    """Without options: three upstreams, the default port, shown until Ctrl-C."""
    arguments = parse(["demo"])

    assert arguments.command == "demo"
    assert (arguments.port, arguments.upstreams, arguments.once) == (None, 3, False)


def test_demo_takes_its_options() -> None:
    """Port, number of upstreams and once are read."""
    arguments = parse(["demo", "--port", "0", "--upstreams", "2", "--once"])

    assert (arguments.port, arguments.upstreams, arguments.once) == (0, 2, True)


def test_serve_takes_names_host_and_port() -> None:
    """Several upstreams may be named."""
    arguments = parse(["serve", "billing", "search-v2", "--host", "::1", "--port", "9"])

    assert arguments.names == ("billing", "search-v2")
    assert (arguments.host, arguments.port) == ("::1", 9)


def test_serve_takes_files_and_workers() -> None:
    """Files of variables may be several; no option takes a password."""
    words = ["--workers", "2", "--env-file", "a.env", "--env-file", "b.env", "--ssl-certfile", "c"]
    arguments = parse(["serve", "billing", *words])

    assert arguments.workers == 2
    assert arguments.env_files == [Path("a.env"), Path("b.env")]
    assert arguments.ssl_certfile == Path("c")
    assert parse(["serve", "billing"]).env_files == []


def test_check_takes_names_and_classes() -> None:
    """A class is written as Python's entry points are."""
    arguments = parse(["check", "billing", "shop.settings:Search"])

    assert arguments.names == ("billing", "shop.settings:Search")


def test_demo_upstream_takes_a_name() -> None:
    """The command that restarts a killed upstream is parsed."""
    arguments = parse(["demo-upstream", "--name", "b", "--port", "7"])

    assert (arguments.name, arguments.port, arguments.with_parent) == ("b", 7, False)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "command"),
        (["demo", "--port", "65536"], "65536 is not a port"),
        (["demo", "--upstreams", "0"], "0 is not a number from 1 to 26"),
        (["demo", "--once", "--upstreams", "1"], "--upstreams must be 2 or more"),
        (["serve"], "upstream"),
        (["serve", "Billing"], "'Billing' is not a name of an upstream"),
        (["check", "billing", "billing"], "named twice"),
        (["serve", "http://user:geheim@a"], "error: argument upstream: an address is not a name"),
        (["check", "http://user:geheim@a"], "error: argument upstream: an address is not a name"),
        (["serve", "a", "--workers", "0"], "0 is not a number of workers, 1 or more"),
        (["serve", "a", "--ssl-keyfile", "key.pem"], "give --ssl-certfile as well"),
        (["serve", "a", "--status", "0", "--workers", "2"], "--status shows the state of one"),
        (["check", "shop:"], "'shop:' is no class or app"),
        (["serve", "shop:Billing"], "'shop:Billing' is not a name of an upstream"),
    ],
)
def test_wrong_usage_exits_two_and_says_why(
    words: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage has exit status 2 and an explanation."""
    with pytest.raises(SystemExit) as exit_info:
        parse(words)

    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert fault in error
    assert "geheim" not in error


@pytest.mark.parametrize("command", ["demo", "serve", "check", "demo-upstream"])
def test_help_explains_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command has a help page of its own."""
    with pytest.raises(SystemExit) as exit_info:
        parse([command, "--help"])

    assert exit_info.value.code == 0
    assert f"usage: fastapi-proxy-di {command}" in capsys.readouterr().out


def test_help_does_not_list_demo_upstream(capsys: pytest.CaptureFixture[str]) -> None:
    """``demo-upstream`` is started by the demo only."""
    with pytest.raises(SystemExit):
        parse(["--help"])

    help_page = capsys.readouterr().out
    assert all(f"\n    {name} " in help_page for name in ("demo", "serve", "check", "schema"))
    assert "demo-upstream" not in help_page


def test_version_is_the_version_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints ``__version__``."""
    with pytest.raises(SystemExit) as exit_info:
        parse(["--version"])

    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"fastapi-proxy-di {__version__}\n"

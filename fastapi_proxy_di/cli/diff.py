"""``check --diff``: what a reload would change, by the variables of an older file.

The settings are read twice: with the file of before, and with those of ``--env-file``. In both
cases the environment overrides the files, as it does in a gateway that reads them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from fastapi_proxy_di.cli.arguments import Arguments
from fastapi_proxy_di.cli.env_files import variables_of
from fastapi_proxy_di.cli.mentions import Named, named
from fastapi_proxy_di.cli.tables import print_table
from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings import (
    Difference,
    ProxySettings,
    UpstreamSettings,
    differences,
    read_all,
    read_proxy_settings,
)

__all__ = ["run"]

_Settings = dict[str, UpstreamSettings | ProxySettings]


def run(arguments: Arguments, before: Path) -> int:
    """Print the settings that differ; no secret is among them, and nothing is probed.

    Args:
        arguments: The command line.
        before: The file with the variables of before.

    Returns:
        0 if both settings are valid, 2 if not.
    """
    try:
        with variables_of(arguments.env_files):
            given = named(arguments.names)
            new, faults = _read(given)
        with variables_of([before]):
            old, more = _read(given)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    faults += [f"{before}: {fault}" for fault in more]
    if faults:
        print(
            "\n".join(("Settings are not valid:", *(f"- {one}" for one in faults))), file=sys.stderr
        )
        return 2
    rows = list(_rows(old, new))
    if rows:
        print_table(["upstream", "setting", "before", "after"], rows)
    else:
        print("No setting differs.")
    return 0


def _read(given: Named) -> tuple[_Settings, list[str]]:
    upstreams, faults = read_all(given.mentions)
    settings: _Settings = dict(upstreams)
    of_app, more = (given.settings, []) if given.settings else read_proxy_settings()
    if of_app is not None:
        settings["(app)"] = of_app
    return settings, faults + more


def _rows(old: _Settings, new: _Settings) -> Iterable[list[str]]:
    for name, settings in new.items():
        for one in differences(old[name], settings):
            yield [name, one.field, *_values(one)]


def _values(one: Difference) -> tuple[str, str]:
    if one.before is None and one.after is None:
        return "(not shown)", "(not shown)"  # perhaps a secret
    return one.before or "-", one.after or "-"

"""Check the types of the documentation's snippets, as the type checkers of their readers do.

    python scripts/snippet_types.py

Each is strict: pyright, mypy without plugins, and mypy with pydantic's plugin and typed
constructors. ``tests/typing``, which has the types of all public names, is checked as well.
Snippets that import an SDK or another framework are checked by ``scripts/sdks.py`` and
``scripts/web_apps.py``, which install them.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PATHS: Final = ("docs/src", "tests/typing")


def check_types(paths: Sequence[str], python: str = sys.executable) -> int:
    """Run the type checkers, all of them also if one finds errors.

    Args:
        paths: Files and folders, relative to the repository. If there are none, those of
            ``PATHS`` are checked, as pyright's configuration names them.
        python: Python of the environment that has what the files import.

    Returns:
        How many of the checkers found errors.
    """
    settings = Path(ROOT, "pyproject.toml").read_text()
    settings = settings.replace("$MYPY_CONFIG_FILE_DIR", str(ROOT))
    plugins, untyped = 'plugins = ["pydantic.mypy"]', "init_typed = false"
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        for title, old, new in (
            ("mypy without plugins", plugins, ""),
            ("mypy with pydantic's plugin", untyped, "init_typed = true"),
        ):
            if old not in settings:
                raise SystemExit(f"pyproject.toml has no line {old}; mend this script")
            config = Path(directory, "pyproject.toml")
            config.write_text(settings.replace(old, new))
            mypy = ["-m", "mypy", "--config-file", str(config), "--cache-dir", os.devnull]
            failed += _run(title, [*mypy, "--python-executable", python, *(paths or PATHS)])
    return failed + _run("pyright", ["-m", "pyright", "--pythonpath", python, *paths])


def _run(title: str, arguments: list[str]) -> bool:
    sys.stdout.write(f"{title}: ")
    sys.stdout.flush()
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode != 0  # noqa: S603


if __name__ == "__main__":
    sys.exit(check_types(sys.argv[1:]))

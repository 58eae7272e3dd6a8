"""Runs tests in an environment of their own, which sees the packages of this one."""

import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from snippet_types import check_types

ROOT = Path(__file__).parents[1]


def run_tests(title: str, packages: list[str], tests: str, snippets: Sequence[str] = ()) -> int:
    """Make an environment with further packages, run tests there, and check types.

    Args:
        title: What is printed before the tests run.
        packages: What to install, in its newest version.
        tests: A file or a folder of tests, relative to the repository.
        snippets: Files that import the packages; their types are checked.

    Returns:
        pytest's exit status, or how many type checkers found errors.
    """
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)  # noqa: S603
        python = f"{directory}/bin/python"
        here = sysconfig.get_path("purelib")
        there = sysconfig.get_path("purelib", vars={"base": directory})
        # `addsitedir` also reads the path files there, that of an editable install among them.
        Path(there, "this_environment.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        # --no-compile: pip would compile all files, of which the tests import a small part.
        install = [python, "-m", "pip", "install", "-q", "--no-compile", *packages]
        subprocess.run(install, check=True)  # noqa: S603
        sys.stdout.write(f"{title}: {', '.join(packages)}\n")
        sys.stdout.flush()
        if snippets and (failed := check_types(snippets, python)):
            return failed
        test = [python, "-m", "pytest", "-q", "--no-showlocals", "-p", "no:cacheprovider", tests]
        # What fails at a busy moment passes in a second run.
        for _ in range(2):
            done = subprocess.run(test, cwd=ROOT, check=False)  # noqa: S603
            if done.returncode == 0:
                return 0
        return done.returncode

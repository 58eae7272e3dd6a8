"""Run the integration tests on the newest and on pre-release FastAPI and Starlette.

Each has an environment of its own, made for the run and deleted afterwards::

    python scripts/next_versions.py            newest, then pre-releases
    python scripts/next_versions.py pre        one of them
"""

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

CHOICES = {"newest": (), "pre": ("--pre",)}
PACKAGES = ("fastapi", "starlette")
SUITES = ("tests/integration",)
ROOT = Path(__file__).parents[1]


def run_suites(options: tuple[str, ...]) -> int:
    """Run the suites in a new environment; not if there is no pre-release where one is asked for.

    Args:
        options: Of ``pip install`` for the packages to try.

    Returns:
        pytest's exit status.
    """
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)
        python = str(Path(directory) / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, f"{ROOT}[test]"], check=True)  # noqa: S603
        # Only these two: the question is not what a pre-release of pydantic does.
        subprocess.run([*pip, "--upgrade", *options, "--no-deps", *PACKAGES], check=True)  # noqa: S603
        shown = "import fastapi, starlette; print(fastapi.__version__, starlette.__version__)"
        versions = subprocess.run(  # noqa: S603
            [python, "-c", shown], check=True, capture_output=True, text=True
        ).stdout
        sys.stdout.write(versions)
        if options and not re.search(r"\d(a|b|rc)\d|dev", versions):
            sys.stdout.write("there is no pre-release\n")
            return 0
        sys.stdout.flush()
        command = [python, "-m", "pytest", "-q", "--no-showlocals", *SUITES]
        command += ["-n", "auto", "--dist", "worksteal", "-p", "no:cacheprovider"]
        return subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603


def main(choices: list[str]) -> int:
    """Run them; give how many failed.

    Args:
        choices: Which; none for all.
    """
    failed = 0
    for choice in choices or CHOICES:
        sys.stdout.write(f"{choice}: ")
        sys.stdout.flush()
        failed += run_suites(CHOICES[choice]) != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

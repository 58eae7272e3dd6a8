"""Run the tests of ``tests/monitoring`` with each monitoring tool, in an environment of its own.

The tools patch FastAPI and Starlette when they are imported, so no two share one. Each
environment sees the packages of the one that runs this script, and has the tool besides::

    python scripts/monitoring_tools.py                     all
    python scripts/monitoring_tools.py sentry aikido_zen   these
"""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

TOOLS = {
    "opentelemetry": ["opentelemetry-instrumentation-fastapi", "opentelemetry-sdk"],
    "native_telemetry": ["opentelemetry-sdk"],
    "sentry": ["sentry-sdk"],
    "instrumentator": ["prometheus-fastapi-instrumentator"],
    "aikido_zen": ["aikido_zen"],
}
"""Each tool's tests are ``tests/monitoring/test_<name>.py``; what to install for them."""
ROOT = Path(__file__).parents[1]


def run_tests(name: str, packages: list[str]) -> int:
    """Make an environment with the package and the tool, and run the tool's tests there.

    Returns:
        pytest's exit status.
    """
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)  # noqa: S603
        python = f"{directory}/bin/python"
        here = sysconfig.get_path("purelib")
        there = sysconfig.get_path("purelib", vars={"base": directory})
        # `addsitedir` also reads the path files there, that of an editable install among them.
        Path(there, "this_environment.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        install = [python, "-m", "pip", "install", "-q", *packages]
        subprocess.run(install, check=True)  # noqa: S603
        sys.stdout.write(f"{name}: {', '.join(packages)}\n")
        sys.stdout.flush()
        test = [python, "-m", "pytest", "-q", "--no-showlocals", "-p", "no:cacheprovider"]
        test.append(f"tests/monitoring/test_{name}.py")
        # What a tool does not see it does not see twice; a busy moment passes.
        for _ in range(2):
            done = subprocess.run(test, cwd=ROOT, check=False)  # noqa: S603
            if done.returncode == 0:
                return 0
        return done.returncode


def main(names: list[str]) -> int:
    """Run them; give how many tools failed.

    Args:
        names: Of tools; none for all.
    """
    return sum(run_tests(name, TOOLS[name]) != 0 for name in names or TOOLS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

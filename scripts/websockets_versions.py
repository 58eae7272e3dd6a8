"""Run the WebSocket suites on each supported major version of ``websockets``.

The versions are installed beside the environment, each in a directory of its own that
comes first on the path, so everything else stays as it is::

    python scripts/websockets_versions.py            12, 13, 14, 15 and what is installed
    python scripts/websockets_versions.py 13 14      these
"""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

VERSIONS = ("12", "13", "14", "15")
SUITES = (
    "tests/wire/test_close.py",
    "tests/transport/websocket",
    "tests/forwarding/test_tunnel.py",
    "tests/forwarding/test_tunnel_by_hand.py",
    "tests/forwarding/test_tunnel_endings.py",
    "tests/websocket",
)
ROOT = Path(__file__).parents[1]


def run_suites(path: str) -> int:
    """Run the suites with ``path`` in front of the environment's packages.

    Returns:
        pytest's exit status.
    """
    environment = {**os.environ, "PYTHONPATH": path}
    seen = subprocess.run(
        [sys.executable, "-c", "from websockets.version import version; print(version)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    sys.stdout.write(f"websockets {seen.stdout}")
    sys.stdout.flush()
    command = [sys.executable, "-m", "pytest", "-q", "--no-showlocals"]
    command += ["-n", "auto", "--dist", "worksteal", *SUITES]
    # What a version breaks fails twice; what a busy moment broke does not.
    for again in ([], ["--last-failed"]):
        done = subprocess.run([*command, *again], cwd=ROOT, env=environment, check=False)  # noqa: S603
        if done.returncode == 0:
            return 0
    return done.returncode


def main(versions: list[str]) -> int:
    """Run them all; give how many versions failed.

    Args:
        versions: Major versions; none for all, and the installed one.
    """
    failed = 0
    for version in versions or VERSIONS:
        with tempfile.TemporaryDirectory() as directory:
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
            install += ["--target", directory, f"websockets=={version}.*"]
            subprocess.run(install, check=True)  # noqa: S603
            failed += run_suites(directory) != 0
    if not versions and importlib.metadata.version("websockets").split(".")[0] not in VERSIONS:
        failed += run_suites("") != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

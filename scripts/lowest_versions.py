"""Print a constraints file that pins every direct dependency to its lower bound.

Used by ``.ci/run`` so that each ``>=`` in ``pyproject.toml`` is a tested claim::

    python scripts/lowest_versions.py > lowest.txt
    pip install -c lowest.txt -e '.[test]'
"""

import re
import sys
import tomllib
from pathlib import Path

# Extras that only check the code; the suite does not run on them.
TOOLS = frozenset({"bench", "dev", "docs"})
REQUIREMENT = re.compile(
    r"^(?P<name>[\w.-]+)(?:\[[^\]]*\])?>=(?P<version>[\w.]+)(?P<marker>\s*;.+)?$"
)


def constraints(pyproject: str) -> list[str]:
    """Give one ``name==version`` for each requirement the suite runs on.

    Args:
        pyproject: Text of ``pyproject.toml``.

    Raises:
        ValueError: A requirement has no lower bound, or more than that.
    """
    project = tomllib.loads(pyproject)["project"]
    requirements = list(project["dependencies"])
    for extra, wanted in project["optional-dependencies"].items():
        if extra not in TOOLS:
            requirements += [r for r in wanted if not r.startswith(project["name"] + "[")]
    pins = set()
    for requirement in requirements:
        found = REQUIREMENT.match(requirement)
        if found is None:
            message = f"not of the form name>=version: {requirement}"
            raise ValueError(message)
        pins.add(f"{found['name']}=={found['version']}{found['marker'] or ''}")
    return sorted(pins)


if __name__ == "__main__":
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    sys.stdout.write("\n".join(constraints(pyproject.read_text())) + "\n")

"""The documentation matches the code: snippets, settings, defaults, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from fastapi_proxy_di import (
    AffinitySettings,
    DestinationSettings,
    Failure,
    ProxySettings,
    UpstreamSettings,
)
from fastapi_proxy_di.client import httpx_errors
from scripts import settings_reference
from scripts.reference_tables import with_tables

ROOT = Path(__file__).parents[1]
SNIPPETS = ROOT / "docs" / "src"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = {page: page.read_text() for page in [*PAGES, ROOT / "README.md"]}
SNIPPET_FILES = sorted(SNIPPETS.rglob("*.py"))
WEB_APPS = SNIPPETS / "how_to" / "web_apps"
DEPLOYMENT = SNIPPETS / "how_to" / "deployment"
DISCOVERY = SNIPPETS / "how_to" / "discovery"
SEEN = SNIPPETS / "how_to" / "seen"


def defaults(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Give every setting with its default, nested ones by dotted name."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from defaults(type(field.default), f"{prefix}{name}.")
        elif not field.is_required():
            default = field.get_default(call_default_factory=True)
            yield prefix + name, settings_reference.readable(default)


def variables() -> Iterator[tuple[str, str, str]]:
    """Give page, name and value of each environment variable that a page sets for billing."""
    for page, text in TEXTS.items():
        for name, value in re.findall(r"\b(UPSTREAM_BILLING_[A-Z_]+)=([^\s`\\]+)", text):
            yield page.name, name, value


def test_python_blocks_are_files() -> None:
    """Each Python block of a page is a file of ``docs/src``, so that a test can run it."""
    for page in PAGES:
        for block in re.findall(r"```python[^\n]*\n(.*?)```", TEXTS[page], re.DOTALL):
            assert re.fullmatch(r' *--8<-- "[\w/.:]+"\n *', block), (page.name, block)


def test_snippets_are_shown() -> None:
    """Each file of ``docs/src`` is shown on a page."""
    shown = {
        name
        for text in TEXTS.values()
        for name in re.findall(r'^ *--8<-- "([\w/.]+)(?::\w+)?"$', text, re.MULTILINE)
    }

    others = [
        *WEB_APPS.glob("*.env"),
        *WEB_APPS.glob("*.sh"),
        *DEPLOYMENT.iterdir(),
        *SEEN.glob("*.yml"),
        *DISCOVERY.glob("*.yaml"),
        *DISCOVERY.glob("*.toml"),
    ]
    assert shown == {str(file.relative_to(SNIPPETS)) for file in [*SNIPPET_FILES, *others]}


def test_snippets_are_run() -> None:
    """Each file is loaded by a test, or imported by another file that is."""
    tests = "\n".join(file.read_text() for file in (ROOT / "tests" / "docs").glob("test_*.py"))
    tests += "\n".join(file.read_text() for file in SNIPPET_FILES)
    tests += (ROOT / "tests" / "docs" / "conftest.py").read_text()
    tests += (ROOT / "tests" / "sdks" / "test_sdks.py").read_text()
    tests += (ROOT / "tests" / "migration" / "test_originals.py").read_text()
    tests += (ROOT / "tests" / "servers" / "commands.py").read_text()
    not_run = [
        file.name
        for file in SNIPPET_FILES
        if not file.is_relative_to(WEB_APPS)  # its commands name the files of the apps
        and f"{file.parent.name}/{file.name}" not in tests
        and f'"{file.name}"' not in tests
        and f"from {file.stem} import" not in tests
    ]

    assert not_run == []


def test_recipes_of_web_apps_are_run() -> None:
    """Each has a test in `tests/web_apps`, but for Grafana, which pip cannot install."""
    tests = "\n".join(file.read_text() for file in (ROOT / "tests" / "web_apps").glob("test_*.py"))
    recipes = {file.stem for file in WEB_APPS.glob("*.env")}

    assert set(re.findall(r'\brecipe\("(\w+)"', tests)) == recipes - {"grafana"}


@pytest.mark.parametrize("file", ["app.py", "security.py"])
def test_readme_shows_the_tested_example(file: str) -> None:
    """The README's example is the files that the tests run."""
    assert f"```python\n{(SNIPPETS / 'readme' / file).read_text()}```" in TEXTS[ROOT / "README.md"]


def test_readme_has_one_line_for_each_job() -> None:
    """The README has one line to set up and run the demo, and one to set up and run the tests."""
    lines = re.findall(r"^python3 -m venv .*$", TEXTS[ROOT / "README.md"], re.MULTILINE)

    assert [line.rpartition("python -m ")[2] for line in lines] == [
        "fastapi_proxy_di demo",
        "pytest -n auto --dist worksteal",
    ]


def test_links_of_the_readme_exist() -> None:
    """Every relative link of the README leads to a file."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXTS[ROOT / "README.md"])

    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_variables_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable that a page sets is a setting with a valid value, but for wrong examples."""

    class Billing(UpstreamSettings, name="billing"):
        """The upstream of the pages."""

    checked = set()
    for page, name, value in variables():
        if value in ("ftp://x", "fastest"):
            continue
        with monkeypatch.context() as environment:
            environment.setenv("UPSTREAM_BILLING_DESTINATIONS", "http://127.0.0.1:9001")
            environment.setenv(name, value)
            settings: object = Billing()
        for part in name.removeprefix("UPSTREAM_BILLING_").lower().split("__"):
            assert hasattr(settings, part), (page, name)
            settings = getattr(settings, part)
        checked.add(name)

    assert len(checked) >= 5


def test_variables_of_the_readme_exist() -> None:
    """Each row of the README's table names a setting and its default."""
    rows = re.findall(
        r"^\| `UPSTREAM_BILLING_(\w+)` \| `?([\w.]+)`? \|", TEXTS[ROOT / "README.md"], re.MULTILINE
    )
    known = dict(defaults(UpstreamSettings)) | {"destinations": "required"}

    assert len(rows) >= 8
    for name, default in rows:
        documented = known[name.lower().replace("__", ".")]
        assert default in (documented, "off" if documented == "none" else None), name


def test_defaults_page_is_complete_and_right() -> None:
    """The page on defaults has every setting with the default of its model, optional ones too."""
    page = TEXTS[ROOT / "docs" / "explanation" / "defaults.md"]
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", page, re.MULTILINE))

    assert rows == {
        **dict(defaults(UpstreamSettings)),
        **dict(defaults(ProxySettings)),
        **dict(defaults(AffinitySettings, "affinity.")),
        **dict(defaults(DestinationSettings, "destinations.")),
    }


def test_failures_are_documented_as_they_are() -> None:
    """The reference has a row for each failure, in order, with its side and status."""
    page = TEXTS[ROOT / "docs" / "reference" / "errors.md"]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\d+) \|", page, re.MULTILINE)

    assert rows == [(one.value, one.side.value, str(one.status)) for one in Failure]


def test_exceptions_of_the_client_are_documented_as_they_are() -> None:
    """The page on calls names each failure of a call beside the exception of httpx."""
    page = TEXTS[ROOT / "docs" / "how-to" / "call-an-upstream.md"]
    rows = re.findall(r"^\| `(\w+(?:Error|Timeout))` \| ([`\w, ]+) \|", page, re.MULTILINE)
    documented = {
        failure: exception for exception, cell in rows for failure in re.findall(r"`(\w+)`", cell)
    }

    assert documented == {one.value: name for one, name in httpx_errors._NAMES.items()}


def test_settings_page_is_generated() -> None:
    """The tables of the reference are generated from the docstrings of the settings."""
    page = settings_reference.PAGE.read_text()

    assert with_tables(page, settings_reference.tables()) == page, (
        "run python -m scripts.settings_reference"
    )


def test_settings_tables_have_type_variable_and_anchor() -> None:
    """Each setting has one row with its anchor, its whole variable and the type of its values."""
    text = settings_reference.PAGE.read_text()
    rows = {
        anchor: (variable, kind)
        for anchor, variable, kind in re.findall(
            r"^\| \[`\w+`\]\(#([\w.]+)\)\{ #\1 \}<br>`(\w+)` \| ([^|]+) \|", text, re.MULTILINE
        )
    }
    names = {name for name, _ in defaults(UpstreamSettings)} | {"destinations"}
    names |= {f"app.{name}" for name, _ in defaults(ProxySettings)}

    assert {name for name in rows if not name.startswith("affinity.")} == names - {"affinity"}
    for name, (variable, _) in rows.items():
        prefix = "FASTAPI_PROXY_" if name.startswith("app.") else "UPSTREAM_BILLING_"
        assert variable == prefix + name.removeprefix("app.").upper().replace(".", "__")
    kinds = {name: kind for name, (_, kind) in rows.items()}
    assert kinds["health.interval"] == "duration"
    assert kinds["timeouts.total"] == "duration or none"
    assert kinds["limits.max_in_flight"] == "integer ≥ 1 or none"
    assert kinds["ejection.failure_rate"] == "number > 0 and ≤ 1"
    assert kinds["forwarded.mode"] == "`set`, `append` or `off`"
    assert kinds["request_headers"] == "JSON object with secret values"
    assert kinds["destinations"] == "list of destinations"
    assert kinds["app.telemetry.propagate"] == "`inject`, `pass` or `off`"


def test_architecture_page_names_every_folder_and_only_files_that_exist() -> None:
    """The map of the code is the code's: each folder has a row, each named file is there."""
    page = TEXTS[ROOT / "docs" / "explanation" / "architecture.md"]
    package = ROOT / "fastapi_proxy_di"
    folders = {f"{init.parent.name}/" for init in package.glob("*/__init__.py")}
    files = set(re.findall(r"`([\w./]+/[\w/]*\.?\w+)`", page))

    assert set(re.findall(r"^\| `(\w+/)` \|", page, re.MULTILINE)) == folders
    assert len(files) > 30
    assert [
        name for name in sorted(files) if not ((package / name).exists() or (ROOT / name).exists())
    ] == []

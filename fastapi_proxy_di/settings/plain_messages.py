"""Gives pydantic's messages in plain words, and hints at the usual reason for a wrong value.

No text shows the value, except for the unknown kind of a transform.
"""

import re
from typing import Any, Final

from pydantic_core import ErrorDetails

from fastapi_proxy_di.settings.similar import similar_name

__all__ = ["hint", "plain_message"]

_PLAIN: Final = {
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "int_from_float": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "string_type": "is not a text; in JSON, write it in quotes",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "path_not_file": "is not the path of a file",
}
"""Message by pydantic's kind of error, with the names of its context."""

_QUOTES: Final = ("'", '"')
_PLACEHOLDER: Final = re.compile(r"\$\{|\$\(|\{\{|<no value>|//\$")
"""What a shell, Compose, Kubernetes or Helm should have replaced."""


def plain_message(details: ErrorDetails) -> str:
    """Say what is wrong with a value."""
    kind, context = details["type"], details.get("ctx", {})
    if kind == "union_tag_invalid":
        return _unknown_kind(context)
    if kind == "string_type" and isinstance(details["input"], dict | list):
        return "must be a text, not a list or an object"
    if kind in _PLAIN:
        return _PLAIN[kind].format_map(context)
    return details["msg"][:1].lower() + details["msg"][1:]


def _unknown_kind(context: dict[str, Any]) -> str:
    expected = re.findall(r"'([^']*)'", context["expected_tags"])
    similar = similar_name(context["tag"], expected, 0.8)
    meant = f"did you mean {similar!r}? There" if similar else "there"
    return f"{context['tag']!r} is not a kind; {meant} are {', '.join(expected)}"


def hint(given: object) -> str:
    """Name what is often the reason for a wrong value, ``""`` if nothing is known."""
    if not isinstance(given, str) or not given:
        return ""
    if _PLACEHOLDER.search(given):
        return "; it holds a placeholder that nothing has replaced: write the value itself"
    # A shell removes quotes, and a list of variables does not.
    if given[0] in _QUOTES or (given[-1] in _QUOTES and given.count(given[-1]) == 1):
        return "; the value is in quotes: remove them, as `docker run --env-file` keeps them"
    if re.fullmatch(r"\d+(\.\d+)?\s*%", given):
        return "; write a share, such as 0.1 for 10%"
    return ""

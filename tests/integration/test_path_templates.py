"""Comparisons of path templates: does a mount take all paths of a route?"""

import pytest

from fastapi_proxy_di.integration.path_templates import equal_paths, lies_below


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/health", ""),
        ("/", ""),
        ("", ""),
        ("/billing", "/billing"),
        ("/billing/", "/billing"),
        ("/billing/{item}/x", "/billing"),
        ("/billing/{rest:path}", "/billing"),
        ("/acme/billing/x", "/{tenant}/billing"),
        ("/{name}/billing/x", "/{tenant}/billing"),
        ("/{name:int}/billing/x", "/{tenant:str}/billing"),
        ("/v{number:int}-{name}/x", "/{version}"),
        ("/{a:int}/x", "/{b:int}"),
        ("/{a:path}/b/c", "/{x:path}/b"),
    ],
)
def test_path_below_a_mount(path: str, mount: str) -> None:
    """Every path of the route is the mount's or lies below it."""
    assert lies_below(path, mount)


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/billing2", "/billing"),
        ("/", "/billing"),
        ("/{anything:path}", "/billing"),
        ("/{name}", "/billing"),
        ("/{name}/x", "/{number:int}"),
        ("/7/x", "/{number:int}"),  # it lies below, but no pattern is tried
        ("/{a:path}/x", "/{b}"),
        ("/{a:slug}/x", "/{b}"),  # a convertor of the app may match slashes
        ("//x", "/{b}"),
        ("/x/y", "/{b:path}/y"),
    ],
)
def test_path_that_is_not_certainly_below_a_mount(path: str, mount: str) -> None:
    """Some path of the route is not the mount's, or the two cannot be compared."""
    assert not lies_below(path, mount)


def test_equal_paths_differ_in_names_of_parameters_only() -> None:
    """Convertors count; ``str`` is the one of a parameter without any."""
    assert equal_paths("/users/{id}", "/users/{name:str}")
    assert not equal_paths("/users/{id}", "/users/{id:int}")
    assert not equal_paths("/users", "/users/")

"""The tests here build the documentation; without mkdocs (extra ``docs``) none is collected."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("mkdocs") else ["test_site.py"]

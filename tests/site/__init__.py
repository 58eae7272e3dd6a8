"""The documentation as it is built; `.ci/run` runs these tests in the step that builds it."""
